# fastaug: `make demo` and `make test` are all one needs on a fresh machine with Python >= 3.10 and a C++17 compiler.
PYTHON ?= python3
VENV ?= .venv
QUICK ?=
RUNS ?= 1
BIN := $(VENV)/bin
STAMP := $(VENV)/.fastaug-setup
NATIVE := fastaug/_native.abi3.so
SOURCES := setup.py pyproject.toml $(wildcard csrc/*.h csrc/cpu/*.cpp csrc/cpu/*.h csrc/codecs/*.h)
CSRC := $(wildcard csrc/*.h csrc/codecs/*.h csrc/cpu/*.cpp csrc/cpu/*.h csrc/cuda/*.cu csrc/cuda/*.h tests/emulation/*.h)

.PHONY: help setup demo test lint bench clean
.DEFAULT_GOAL := help

help:  ## what each command does
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 10

setup: $(STAMP) $(NATIVE)  ## a virtual environment in .venv with everything the tests need; quick when up to date

$(STAMP): pyproject.toml constraints.txt scripts/setup.sh
	PYTHON="$(PYTHON)" VENV="$(VENV)" sh scripts/setup.sh
	@touch $(STAMP)

# After setup built it once, changed C++ sources are rebuilt in place.
$(NATIVE): $(SOURCES) | $(STAMP)
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $(NATIVE)

demo: setup  ## synthesise music, listen to its augmentations in a page, pre-train and probe a small encoder
	$(BIN)/fastaug demo

# Waiting OpenMP threads sleep instead of spinning: the tests start many processes on few cores.
test: setup  ## all tests
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q

lint: setup  ## ruff, mypy and clang-format, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CSRC)

bench:  ## our speed beside others', in an environment of its own, .venv-bench (QUICK=1: a few minutes; RUNS=2: do two runs agree?)
	PYTHON="$(PYTHON)" QUICK="$(QUICK)" RUNS="$(RUNS)" bash benchmarks/run.sh

clean:  ## remove everything that was built, the environment included
	rm -rf $(VENV) build dist *.egg-info $(NATIVE) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
