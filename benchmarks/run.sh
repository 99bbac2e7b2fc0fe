#!/usr/bin/env bash
# make bench: build .venv-bench, in which the peers really run, then time fastaug beside them on the CPU.
#   QUICK=1          few rounds; under three minutes once the environment exists
#   RUNS=2           every suite twice, the second time right after the first: RESULTS.md says whether the two agree
#   SUITES="decode"  only these suites (default: every benchmarks/test_*.py but the GPU's)
#   RESULTS=DIR      write the JSON and the pictures there, and leave RESULTS.md and README.md alone
#   BESIDE=JSON      the same beside the result of an earlier run
#   BENCH_PYTHON=PATH  the interpreter to build the environment with
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
env=$root/.venv-bench
say() { printf '\n== %s\n' "$*"; }

choose_python() {  # the first that really is a Python >= 3.10; 3.11 and 3.12 have wheels of every peer
    local candidate
    for candidate in ${BENCH_PYTHON:-python3.12 python3.11 "${PYTHON:-python3}" python3.13}; do
        if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "make bench needs Python >= 3.10 with venv; name one: BENCH_PYTHON=/path/to/python make bench" >&2
    exit 1
}

build_environment() {
    local python stamp free_mb
    stamp=$(cat benchmarks/requirements.txt benchmarks/constraints.txt | sha256sum | cut -d' ' -f1)
    if [ -x "$env/bin/python" ] && [ "$(cat "$env/stamp" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    if [ -x "$env/bin/python" ]; then  # the requirements have changed since: what still fits stays
        say "updating $env"
        install_peers && return
        echo "could not update it; building it anew"
    fi
    free_mb=$(df -Pm "$root" | awk 'NR == 2 { print $4 }')
    if [ "$free_mb" -lt 10000 ] && [ ! -d "$env" ]; then
        echo "make bench needs 10 GB for the CUDA build of torch 2.11 (torchaudio and torch-audiomentations load nothing else);" \
             "$free_mb MB are free here" >&2
        exit 1
    fi
    python=$(choose_python)
    say "building $env with $python: 6 GB, some minutes"
    "$python" -m venv --clear "$env"
    install_peers
}

install_peers() {  # uses the stamp of build_environment
    "$env/bin/python" -m pip install --quiet --disable-pip-version-check \
        -r benchmarks/requirements.txt -c benchmarks/constraints.txt &&
        echo "$stamp" >"$env/stamp"
}

install_tools() {  # sox is a peer, ffmpeg's libraries are what torchcodec decodes with
    local missing=()
    command -v sox >/dev/null || missing+=(sox)
    command -v ffmpeg >/dev/null || missing+=(ffmpeg)
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing ${missing[*]}"
        if { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$out/apt.log" 2>&1; then
            return
        fi
    fi
    echo "not installed: ${missing[*]}; their rows will say so (Debian: sudo apt-get install ${missing[*]})"
}

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
build_environment
install_tools
say "building fastaug's native operators"
"$env/bin/python" setup.py --quiet build_ext --inplace --build-temp build/bench

export CUDA_VISIBLE_DEVICES="" PYTHONPATH="$root" PYTHONUNBUFFERED=1
# Encoded tracks, which several suites need, for as long as the recipe for them stays the same.
FASTAUG_BENCH_CACHE=$env/tracks-$(sha256sum benchmarks/materials.py | cut -c1-16)
export FASTAUG_BENCH_CACHE
FASTAUG_BENCH_LOAD=$(cut -d' ' -f1 /proc/loadavg 2>/dev/null || true)  # before the first suite adds to it
export FASTAUG_BENCH_LOAD
results=${RESULTS:-benchmarks/results}
runs=${RUNS:-1}
if ! [[ $runs =~ ^[12]$ ]]; then
    echo "RUNS must be 1 or 2, got $runs" >&2
    exit 1
fi
quick=()
[[ -n ${QUICK:-} && ${QUICK:-} != 0 ]] && quick=(--quick)
failed=()
parts=()  # of the last run
before=()  # of the first of two
time_suites() {  # name, files: in a process of their own
    local run json
    for ((run = 1; run <= runs; run++)); do
        say "$1$([ "$runs" = 1 ] || echo ", run $run")"
        mkdir -p "$out/$run"
        json=$out/$run/$1.json
        "$env/bin/python" -m pytest "${@:2}" -q -p no:cacheprovider --benchmark-disable-gc \
            --benchmark-columns=median,iqr,rounds --benchmark-json="$json" || failed+=("$1")
        if [ -s "$json" ]; then
            if [ "$run" = "$runs" ]; then parts+=("$json"); else before+=("$json"); fi
        fi
    done
}
chosen=()
last=()  # the training step sets the allocator to its own liking: behind all others
for file in benchmarks/test_*.py; do
    suite=${file##*/test_}
    suite=${suite%.py}
    [[ $suite = gpu* ]] && continue
    [[ -n ${SUITES:-} && " $SUITES " != *" $suite "* ]] && continue
    if [ "$suite" = feed ]; then last=("$file"); else chosen+=("$file"); fi
done
chosen+=("${last[@]}")
if [ ${#quick[@]} -gt 0 ]; then  # one process, so that torch and the peers are imported once
    time_suites quick "${chosen[@]}"
else
    for file in "${chosen[@]}"; do
        suite=${file##*/test_}
        time_suites "${suite%.py}" "$file"
    done
fi
beside=${BESIDE:-}
if [ ${#before[@]} -gt 0 ]; then
    beside=$("$env/bin/python" benchmarks/render.py merge "${before[@]}" --results "$out/before" "${quick[@]}")
fi
if [ ${#parts[@]} -gt 0 ]; then
    merged=$("$env/bin/python" benchmarks/render.py merge "${parts[@]}" --results "$results" "${quick[@]}")
    "$env/bin/python" benchmarks/plots.py "$merged" || failed+=("the pictures")
    if [ "$results" = benchmarks/results ]; then
        "$env/bin/python" benchmarks/render.py table --results "$results" --out benchmarks/RESULTS.md \
            ${beside:+--beside "$beside"}
        "$env/bin/python" docs/make_table.py
        say "wrote $merged, benchmarks/RESULTS.md and the table of README.md"
    else
        if [ -n "$beside" ]; then
            "$env/bin/python" benchmarks/render.py compare "$beside" "$merged" --note || true  # it tells; no failure
        fi
        say "wrote $merged"
    fi
fi
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
