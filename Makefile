# make serve [ARGS='--port 9000 …']   set up what is missing, then serve
# make test  [PYTEST_ARGS='tests/config']

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PYTEST_ARGS ?=

# A stamp is newer than what it was made from: the second run installs nothing and needs no network.
VENV_STAMP := $(VENV)/.made
SERVE_STAMP := $(VENV)/.installed-serve
TEST_STAMP := $(VENV)/.installed-test

.DEFAULT_GOAL := help
.PHONY: help serve test lint clean

help:
	@echo "make serve [ARGS='--port 9000']            serve the default model on 127.0.0.1:8000"
	@echo "make test  [PYTEST_ARGS='tests/config']    lint, then run the tests"
	@echo "make lint                                  ruff check and ruff format --check"
	@echo "make clean                                 remove the virtual environment and the caches"

serve: $(SERVE_STAMP)
	@exec $(BIN)/headrace serve $(ARGS)

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(TEST_STAMP)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

clean:
	rm -rf $(VENV) .pytest_cache .hypothesis .mypy_cache .ruff_cache build dist

$(VENV_STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Headrace needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
			"Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

$(SERVE_STAMP): pyproject.toml constraints.txt $(VENV_STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(TEST_STAMP): pyproject.toml constraints.txt $(VENV_STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $(SERVE_STAMP) $@
