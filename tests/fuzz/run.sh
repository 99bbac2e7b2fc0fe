#!/usr/bin/env bash
# Fuzzes a decoder, or the planning of crops, with libFuzzer under AddressSanitizer and UndefinedBehaviorSanitizer; variables that nobody set hold
# NaN and large numbers.
#
#     tests/fuzz/run.sh CODEC SECONDS [FOLDER]
#
# FOLDER (default: fuzz-CODEC in the temporary folder) keeps the corpus, so that a later run goes on from it, and the
# inputs of findings (crash-*, timeout-*, oom-*). Ends with the executions, and with an error if there was a finding.
# TIMEOUT (10): the seconds that an input may take; more where the process may be stopped meanwhile. CXX names the
# compiler (clang++). The sources of a codec are csrc/cpu/CODEC*.cpp.
set -euo pipefail
codec=$1 seconds=$2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=${3:-${TMPDIR:-/tmp}/fuzz-$codec}
mkdir -p "$folder/corpus" "$folder/findings"

"${CXX:-clang++}" -std=c++17 -O1 -gline-tables-only -fno-omit-frame-pointer -ffp-contract=off -I"$root/csrc" \
    -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
    -ftrivial-auto-var-init=pattern -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION \
    "$here/fuzz_$codec.cpp" "$root"/csrc/cpu/"$codec"*.cpp -o "$folder/fuzz_$codec"
"${PYTHON:-python3}" "$here/seeds.py" "$codec" "$folder/seeds"
if [ -d "$here/found/$codec" ]; then cp "$here/found/$codec"/* "$folder/seeds"; fi  # what was wrong once
"$folder/fuzz_$codec" -max_total_time="$seconds" -max_len=8192 -timeout="${TIMEOUT:-10}" -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$folder/findings/" "$folder/corpus" "$folder/seeds" 2>&1 | tail -n "${TAIL:-45}"
