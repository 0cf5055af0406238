# make repro   set up .venv and rebuild every table and figure at the scale of params.yaml
# make test    set up .venv and run the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The packages of the lock file; a machine that has its own torch, or wants a CPU-only one, sets up .venv itself (README).
INSTALLED := $(VENV)/.installed
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup repro test test-fast lint lock bench-demo snapshot clean

setup: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "X-Nets needs Python 3.11 or newer; say which: make PYTHON=python3.11 repro"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

repro: setup
	$(BIN)/dvc repro
	@echo "Tables and figures are in $$($(BIN)/python -m experiments where)"

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

test-fast: setup
	$(BIN)/python -m pytest -m "not slow"

# Resolve requirements.lock anew from pyproject.toml.
lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras pyproject.toml -o requirements.lock
