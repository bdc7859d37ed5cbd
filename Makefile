# make demo | test | test-fast | mutants | lint | bench | ui | clean. Each sets up .venv first when it is missing or out
# of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-fast mutants lint bench ui setup clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt encoders/carried/weights.py
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "nightloom needs Python 3.11 or newer; run make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m encoders.carried.weights
	touch $@

demo: setup
	$(BIN)/python -m demo $(DOMAIN)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report= --cov-fail-under=95

test-fast: setup
	$(BIN)/python -m pytest -m "not slow"

mutants: setup
	$(BIN)/python -m tests.mutants

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks

ui: setup
	$(BIN)/nightloom ui

clean:
	rm -rf $(VENV) data build *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache
