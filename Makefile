# Thin targets: each prints the commands it runs, and none of them hides one.
# Every path is relative, so that a checkout below a folder with spaces in its name works.

PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
PIP := $(BIN)/python tools/uv_pip.py
PYTEST := $(BIN)/pytest -n $(JOBS) --dist loadfile
ALONE := $(BIN)/pytest -n 0

.DEFAULT_GOAL := help
.PHONY: help setup up demo test test-all test-nightly coverage bench bench-peers worlds lint format types docs deploy-files failures constraints clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

setup: .venv/.local  ## make .venv with the product and its local engine; does nothing when nothing changed

up: setup  ## start everything on this machine
	$(BIN)/pilotage up

demo: setup  ## a bad version caught, a good one promoted, a budget, a proof: offline, in a minute and a half
	$(BIN)/python examples/demo/demo.py --fetch-only
	$(BIN)/python examples/demo/demo.py

test: .venv/.dev  ## the quick tests
	$(PYTEST) -m "not slow and not nightly"

test-all: .venv/.dev  ## the quick and the slow tests: real model, Debian programs
	$(ALONE) -m "alone and not nightly"
	$(PYTEST) -m "not alone and not nightly"

test-nightly: .venv/.dev  ## soaks and proofs with 10^6 operations, 10^7 calls: one to two hours, on a quiet machine
	$(ALONE) -m "nightly and alone"
	$(PYTEST) -m "nightly and not alone"

coverage: .venv/.dev  ## the quick tests with branch coverage: 90 % of all, 100 % of core and rules
	$(PYTEST) -m "not slow and not nightly" --cov --cov-report=
	$(BIN)/coverage report --fail-under=90
	$(BIN)/coverage report --fail-under=100 --include="*/pilotage/core/*,*/rules.py"

bench: .venv/.dev  ## what a call costs, beside nginx and the peers there are in the same run
	$(BIN)/python tests/bench/bench.py
	$(BIN)/python tests/bench/latency.py
	$(BIN)/python tests/bench/audit.py
	$(BIN)/python tests/bench/registry.py
	$(BIN)/python tests/bench/rollups.py

bench-peers: .venv/.dev  ## install the gateways to measure ours beside (900 MB, below build/)
	$(BIN)/python tests/support/bench_peers.py

worlds: .venv/.dev  ## how often rollouts in simulated worlds end wrongly: 2,000 runs of each, one to two hours
	$(BIN)/python tests/bench/gates.py

lint: .venv/.dev  ## style, import contracts, dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry .

format: .venv/.dev  ## rewrite the code as the formatter wants it
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

types: .venv/.dev  ## mypy, strict, on the product and its tests
	$(BIN)/mypy

docs: .venv/.dev  ## write the reference pages that the code is the source of
	$(BIN)/python tools/make_reference.py

deploy-files: .venv/.dev  ## write the files below deploy/ that the code is the source of
	$(BIN)/python tools/make_deploy.py

failures: .venv/.dev  ## write docs/reference/failures.md anew from a run of the failure laboratory
	$(BIN)/python tests/support/failure_lab.py > build/failures.md
	mv build/failures.md docs/reference/failures.md

constraints: .venv/.dev  ## write constraints.txt anew with the newest versions that fit pyproject.toml
	rm -rf build/constraints
	$(PYTHON) -m venv --without-pip build/constraints
	$(PIP) install --python build/constraints/bin/python pip uv -e ".[dev]"
	echo "# Every package of .[dev] in one exact version; written by 'make constraints'." > constraints.txt
	$(BIN)/uv pip freeze --python build/constraints/bin/python --exclude-editable >> constraints.txt
	rm -rf build/constraints

clean:  ## remove what was built and cached, but not .venv
	rm -rf build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

.venv/.tools: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Pilotage needs Python 3.11 or newer, and '$(PYTHON)' is not. Name one: make PYTHON=python3.12 ..." >&2; \
	  exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip uv
	@touch $@

.venv/.local: .venv/.tools pyproject.toml constraints.txt
	$(PIP) install --compile-bytecode -b constraints.txt -c constraints.txt -e ".[local]"
	$(BIN)/python -m compileall -q src
	@touch $@

.venv/.dev: .venv/.tools pyproject.toml constraints.txt
	$(PIP) install --compile-bytecode -b constraints.txt -c constraints.txt -e ".[dev]"
	$(BIN)/python -m compileall -q src
	@touch $@
