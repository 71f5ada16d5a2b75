# Every target does its own set-up: python3 with venv and a C++20 compiler are all that is needed.
# Everything made here lives in .venv and build; nothing is redone while its sources are unchanged.

PYTHON      ?= python3
CONSTRAINTS ?= constraints-dev.txt
JOBS        ?= $(shell nproc 2>/dev/null || echo 2)
FUZZ_SECONDS ?= 60

VENV    := $(CURDIR)/.venv
PY      := $(VENV)/bin/python
DIST    := build/dist
SOURCES := $(shell find src csrc python -type f -not -path '*/__pycache__/*' -not -path '*/.*') \
           CMakeLists.txt pyproject.toml README.md LICENSE
CXX_FILES := $(shell find src csrc tests/cpp tests/fuzz benchmarks -not -path '*/.*' '(' -name '*.cc' -o -name '*.h' ')')

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH

.PHONY: help setup test lint types cpp python torture fuzz demo bench instructions clean
.DELETE_ON_ERROR:
.SECONDARY:

help:
	@echo "make test   everything that CI checks: lint, types, cpp, python"
	@echo "make demo   a real teacher becomes a cache, a student learns from it"
	@echo "make bench  codecs, losses, loaders, training steps, start-up;  make instructions   (valgrind);  make setup, make clean"
	@echo "make torture   every kind of fault, thousands of times; ends with a table"
	@echo "make fuzz   libFuzzer (clang) on every parser, FUZZ_SECONDS=60 each"

test: lint types cpp python

setup: $(VENV)/dev.stamp

lint: $(VENV)/dev.stamp
	ruff check .
	ruff format --check .
	clang-format --dry-run -Werror $(CXX_FILES)

types: $(VENV)/dev.stamp
	mypy
	$(PY) -m mypy.stubtest sparselogits._core --mypy-config-file pyproject.toml \
	    --allowlist tests/stubtest-allowlist.txt

cpp: cpp-dev cpp-asan

cpp-%: $(VENV)/dev.stamp
	test -f build/$*/build.ninja || cmake --preset $* -G Ninja
	cmake --build --preset $* -j $(JOBS)
	ctest --preset $* -j $(JOBS)

# Idle threads of torch that spin would take the cores from the processes that tests start.
python: $(VENV)/dev.stamp
	OMP_WAIT_POLICY=PASSIVE $(PY) -m pytest tests

torture: $(VENV)/dev.stamp cpp-tsan
	$(PY) tests/torture/run.py --json build/torture.json

fuzz: $(VENV)/dev.stamp
	$(PY) -m pip install -q -c $(CONSTRAINTS) atheris
	$(PY) tests/fuzz/run.py --seconds $(FUZZ_SECONDS)

demo: $(VENV)/demo.stamp
	sparselogits demo

instructions: $(VENV)/dev.stamp
	$(PY) benchmarks/callgrind_codecs.py

bench: $(VENV)/dev.stamp
	$(PY) -m pip install -q -r benchmarks/requirements-codecs.txt
	$(PY) benchmarks/bench_codecs.py
	$(PY) benchmarks/bench_hostile.py
	$(PY) benchmarks/bench_loss.py --markdown docs/results/loss.md
	$(PY) benchmarks/bench_loader.py --setup --markdown docs/results/loader.md
	$(PY) benchmarks/bench_step.py --markdown docs/results/step.md
	$(PY) benchmarks/bench_startup.py --markdown docs/results/startup.md

clean:
	rm -rf build .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The environment: the built wheel with one of its extras, dev or demo.
$(VENV)/%.stamp: $(DIST)/wheel.stamp $(CONSTRAINTS)
	$(PY) -m pip install -q -c $(CONSTRAINTS) "$$(echo $(DIST)/*.whl)[$*]"
	$(PY) -m pip install -q --no-deps --force-reinstall $(DIST)/*.whl
	cd build && $(PY) -c 'import sparselogits as s, sysconfig as c; \
	    p = c.get_path("platlib"); assert s.__file__.startswith(p), (s.__file__, p)'
	touch $@

$(DIST)/wheel.stamp: $(SOURCES) | $(PY)
	rm -rf $(DIST)
	$(PY) -m pip wheel -q . --no-deps -w $(DIST)
	touch $@

$(PY):
	$(PYTHON) -m venv $(VENV)
