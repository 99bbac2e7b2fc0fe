#!/bin/sh
# Creates $VENV and installs fastaug into it, editable, with all that its tests and recipes need. Called by `make setup`.
# An importable torch >= 2.6 is kept: the environment then sees the system's packages and torch is pinned to that
# version, so that no dependency can replace it. Otherwise constraints.txt chooses one.
set -eu
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }

command -v "$PYTHON" >/dev/null || { say "there is no $PYTHON; name a Python >= 3.10: make setup PYTHON=python3.11"; exit 1; }
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    say "$("$PYTHON" --version) is too old; name a Python >= 3.10: make setup PYTHON=python3.11"
    exit 1
}

pins="$(mktemp)"
trap 'rm -f "$pins"' EXIT
torch="$("$PYTHON" - 2>/dev/null <<'CODE' || true
import torch
if tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 6):
    print(torch.__version__)
CODE
)"
if [ -n "$torch" ]; then
    say "keeping torch $torch of $PYTHON (the environment sees the system's packages)"
    site="--system-site-packages"
    grep -v '^torch' constraints.txt >"$pins"
    echo "torch==$torch" >>"$pins"
else
    site=""
    cp constraints.txt "$pins"
    wanted="$("$PYTHON" -c 'import sys; print("torch==2.13.0 (CPU)" if sys.version_info[:2] == (3, 11) else "torch>=2.6, the newest for this Python (may be a large CUDA build)")')"
    say "no torch >= 2.6 in $PYTHON; installing $wanted"
fi

"$PYTHON" -m venv $site "$VENV" || {
    say "could not create $VENV; on Debian and Ubuntu: sudo apt-get install python3-venv"
    exit 1
}
# If $PYTHON is itself of a virtual environment, "system" means its base: show the packages of $PYTHON too.
if [ -n "$site" ] && ! "$VENV/bin/python" -c 'import torch' 2>/dev/null; then
    "$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib")); print(sysconfig.get_path("platlib"))' |
        sort -u >"$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/parent.pth"
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1
# Not isolated: the build needs setuptools only, and must not fetch it twice.
"$VENV/bin/python" -m pip install --quiet -c "$pins" "setuptools>=64" wheel
"$VENV/bin/python" -m pip install --quiet -c "$pins" --no-build-isolation -e ".[dev]"
say "ready: torch $("$VENV/bin/python" -c 'import torch; print(torch.__version__)') in $VENV"
