# make serve [ARGS='--port 9000 …']   set up what is missing, then serve
# make test  [PYTEST_ARGS='tests/config']

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
PYTEST_ARGS ?=
# Two files of tests at a time: about half of them wait for one core or for a server.
PYTEST_WORKERS ?= 2
SANITIZE ?= address,undefined

# A stamp is newer than what it was made from: the second run installs nothing and needs no network.
VENV_STAMP := $(VENV)/.made
BUILD_STAMP := $(VENV)/.installed-build
SERVE_STAMP := $(VENV)/.installed-serve
TEST_STAMP := $(VENV)/.installed-test
# With the folders, so that a removed file counts as a change.
NATIVE_SOURCES := native/CMakeLists.txt $(shell find native/src)

.DEFAULT_GOAL := help
.PHONY: help serve test lint native-test clean

help:
	@echo "make serve [ARGS='--port 9000']            serve the default model on 127.0.0.1:8000"
	@echo "make test  [PYTEST_ARGS='tests/config']    lint, then run the tests"
	@echo "make lint                                  ruff check and ruff format --check"
	@echo "make native-test [SANITIZE=thread]         the tests of native/ under sanitizers (address,undefined)"
	@echo "make clean                                 remove the virtual environment, the builds and the caches"

serve: $(SERVE_STAMP)
	@exec $(BIN)/headrace serve $(ARGS)

test: lint
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

lint: $(TEST_STAMP)
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples

native-test: NATIVE_TEST_BUILD = build/native-test-$(SANITIZE)
native-test: export PATH := $(CURDIR)/$(BIN):$(PATH)
native-test: $(BUILD_STAMP)
	cmake -S native -B $(NATIVE_TEST_BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Debug -DHEADRACE_PYTHON_MODULE=OFF \
		-DHEADRACE_NATIVE_TESTS=ON -DHEADRACE_SANITIZE=$(SANITIZE)
	cmake --build $(NATIVE_TEST_BUILD)
	$(NATIVE_TEST_BUILD)/headrace_native_tests

clean:
	rm -rf $(VENV) .pytest_cache .hypothesis .mypy_cache .ruff_cache build dist

$(VENV_STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Headrace needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
			"Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

# What builds the native kernels lives in the environment, too: an isolated build would compile everything every time.
$(BUILD_STAMP): pyproject.toml constraints.txt $(VENV_STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt \
		$$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])') \
		$(foreach tool,cmake ninja,$(if $(shell command -v $(tool)),,$(tool)))
	@touch $@

# Without a working compiler this succeeds as well, and the reference kernels run.
define install_editable
@rm -f $(VENV)/install.log
$(BIN)/python -m pip install --quiet --log $(VENV)/install.log -c constraints.txt --no-build-isolation -e '$(1)'
@$(BIN)/python -c 'import importlib.metadata as m, sys; sys.exit(not any(f.match("_native.*") for f in m.files("headrace")))' \
	|| { echo "The native kernels could not be built ($(VENV)/install.log):"; \
		grep -m 3 -A 3 -e 'CMake Error' -e ' error: ' $(VENV)/install.log; } >&2
endef

$(SERVE_STAMP): pyproject.toml constraints.txt $(BUILD_STAMP) $(NATIVE_SOURCES)
	$(call install_editable,.)
	@touch $@

$(TEST_STAMP): pyproject.toml constraints.txt $(BUILD_STAMP) $(NATIVE_SOURCES)
	$(call install_editable,.[test])
	@touch $(SERVE_STAMP) $@
