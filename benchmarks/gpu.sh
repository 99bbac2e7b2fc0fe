#!/usr/bin/env bash
# Build, test and time fastaug on a CUDA machine that has torch, CuPy and a compiler but no network.
#   OUT=DIR      where gpu.log, gpu-tests.xml and the results (<card>-<date>.json, gpu-*.json) go (default ./out)
#   WHEELS=DIR   wheels brought along for packages that are missing there
#   PYTHON=PATH  the interpreter that has torch (default: python3)
# Takes under eight minutes. Exits non-zero when anything failed, after writing what there is.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
root=$PWD
out=${OUT:-./out}
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
tests_seconds=${TESTS_SECONDS:-200}
rm -f "$out"/gpu-*.json "$out"/gpu-tests.xml  # of a run before
last_second=465  # nothing new is waited for after this, so that all is over within eight minutes
exec > >(tee "$out/gpu.log") 2>&1
tee_pid=$!
status=0

say() { printf '\n== [%3ds] %s\n' "$SECONDS" "$*"; }
fail() { status=1; printf 'FAILED: %s\n' "$*"; }
finish() {
    say "$([ "$status" = 0 ] && echo "all passed" || echo "something failed, see above")"
    printf 'wrote %s\n' "$out"/*
    exec >&- 2>&-  # lets tee write the last lines
    wait "$tee_pid"
    exit "$status"
}
left() {  # seconds until the last, at most $1, at least none
    local most=$((last_second - SECONDS))
    most=$((most > 0 ? most : 0))
    echo $(($1 < most ? $1 : most))
}
has() { "$python" -c "import $1" 2>/dev/null; }

say "the machine"
"$python" --version || { fail "no '$python'; name the interpreter that has torch: PYTHON=… benchmarks/gpu.sh"; finish; }
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 FASTAUG_REQUIRE_CUDA=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export FASTAUG_BENCH_CACHE=$scratch/tracks  # encoded once for all cases
if [ -n "${WHEELS:-}" ]; then
    if "$python" -m pip install -q --no-index --no-deps --no-compile --target "$scratch/site" "$WHEELS"/*.whl; then
        PYTHONPATH="$PYTHONPATH:$scratch/site"
    else
        fail "could not install the wheels in $WHEELS"
    fi
fi

say "what it has"
"$python" - <<'PY'
import importlib
names = ("torch", "cupy", "numpy", "soundfile", "pytest", "pytest_benchmark", "pytest_timeout", "setuptools", "tqdm", "scipy",
         "hypothesis", "julius", "webdataset", "soxr", "torchaudio", "torch_audiomentations", "nnAudio")
for name in names:
    try:
        print(f"  {name:22} {getattr(importlib.import_module(name), '__version__', 'yes')}")
    except Exception as error:
        print(f"  {name:22} missing ({type(error).__name__}: {str(error)[:80]})")
PY
carry=()
for package in numpy setuptools pytest pytest_benchmark tqdm soundfile cffi pycparser julius soxr webdataset braceexpand; do
    has "$package" || carry+=("${package//_/-}")
done
if [ ${#carry[@]} -gt 0 ]; then
    version=$("$python" -c 'import platform; print(platform.python_version())')
    echo "missing, and needed by some tests: ${carry[*]}. Where there is a network:"
    echo "    pip download --no-deps --only-binary=:all: --python-version $version -d wheels ${carry[*]}"
    echo "then bring the folder along: WHEELS=wheels benchmarks/gpu.sh"
fi
has torch || { fail "torch is missing"; finish; }
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    fail "no usable CUDA device: torch $("$python" -c 'import torch; print(torch.__version__, "built for CUDA", torch.version.cuda)') sees none"
    finish
fi
has cupy || { fail "CuPy is missing: carry cupy-cuda12x or cupy-cuda13x"; finish; }
has setuptools || { fail "setuptools is missing: the extension cannot be built"; finish; }

say "building the extension in place"
"$python" setup.py --quiet build_ext --inplace || { fail "the build"; finish; }
[ -f fastaug/doctor.py ] && "$python" -m fastaug.doctor

if has pytest; then
    tests_seconds=$(left "$tests_seconds")
    say "pytest -m gpu, at most ${tests_seconds}s"
    # A test module that needs a package this machine lacks must not hide the others.
    timeout -k 20 -s INT "$tests_seconds" "$python" -m pytest tests -m gpu -q -rfE -p no:cacheprovider \
        --continue-on-collection-errors --junit-xml="$out/gpu-tests.xml"
    tests_status=$?
    [ "$tests_status" = 0 ] || fail "tests (exit $tests_status)"
else
    fail "pytest is missing: no tests were run"
fi

bench() {  # name, seconds at most, pytest's arguments: in a process of its own, since an error on the device is there to stay
    local name=$1 seconds
    seconds=$(left "$2")
    shift 2
    if [ "$seconds" -lt 25 ]; then
        fail "no time left for the benchmarks of $name"
        return
    fi
    say "benchmarks: $name, at most ${seconds}s"
    # Cases that would begin in the last seconds are skipped, so that the JSON is written.
    FASTAUG_BENCH_SECONDS=$((seconds - 15)) timeout -k 10 -s INT "$seconds" "$python" -m pytest "$@" -q -s -p no:cacheprovider \
        --benchmark-columns=median,iqr,rounds --benchmark-json="$out/gpu-$name.json" || fail "benchmarks of $name (exit $?)"
    if [ -s "$out/gpu-$name.json" ]; then
        parts+=("$out/gpu-$name.json")
    else
        fail "no result of the benchmarks of $name was written"
    fi
}
parts=()
if has pytest && has pytest_benchmark; then
    bench kernels 100 benchmarks/test_gpu.py -k "not decode"  # the copy bandwidth first
    bench decoders 55 benchmarks/test_gpu.py -k decode
    bench training 45 benchmarks/test_gpu_training.py
    if [ ${#parts[@]} -gt 0 ]; then
        "$python" benchmarks/gpu_tests.py "$out/gpu-tests.xml" "$tests_status" "$out/gpu-tests.json" && parts+=("$out/gpu-tests.json")
        "$python" benchmarks/render.py merge "${parts[@]}" --results "$out" || fail "merging the results"
    fi
else
    fail "pytest-benchmark is missing: no benchmarks were run"
fi

profile() {  # what each kernel does to the device's units; needs the right to read its counters
    local metrics="gpu__time_duration.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed"
    metrics+=",sm__throughput.avg.pct_of_peak_sustained_elapsed,sm__warps_active.avg.pct_of_peak_sustained_active"
    metrics+=",launch__registers_per_thread"
    timeout -k 10 "$1" ncu --profile-from-start off --kernel-name "regex:^fa_" --metrics "$metrics" --csv --page raw \
        "$python" benchmarks/gpu_profile.py >"$out/ncu.csv" 2>"$out/ncu.log"
}
if ! command -v ncu >/dev/null; then
    say "no ncu here: no profile of the kernels"
elif [ "$(left 60)" -lt 15 ]; then
    say "no time left for ncu"
else
    say "ncu, at most $(left 60)s"
    if profile "$(left 60)" && grep -q '^"0"' "$out/ncu.csv"; then
        "$python" benchmarks/ncu_summary.py "$out/ncu.csv"
    else  # often not permitted; that is no failure of ours
        tail -n 3 "$out/ncu.log" "$out/ncu.csv"
    fi
fi
finish
