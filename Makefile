# The whole vocabulary: `make help`.  Only Python 3.11 or newer, git and make are needed; uv is used
# when it is on PATH (`make UV= test` does without).  GNU make 3.81, which macOS has, is enough.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

# The first Python on PATH that is new enough; the environment or the command line may say another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)
UV ?= $(shell command -v uv 2>/dev/null)
unexport PYTHONDONTWRITEBYTECODE
# One worker more than cores: a fifth of what tests do is to wait.
PYTEST_ARGS ?= --numprocesses=$(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$((n < 8 ? n + 1 : 8))) --promises

VENV := .venv
BIN := $(VENV)/bin
ifeq ($(strip $(UV)),)
INSTALL = $(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check
else
INSTALL = VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --compile-bytecode
endif

.PHONY: help demo serve test check format bench soak mutants e2e bundle lock clean

help: ## say what each of these does
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(VENV)/.runtime ## see the bus work, from an empty folder to an answered task
	@$(BIN)/mcp-bus demo

serve: $(VENV)/.runtime ## serve the bus to an MCP client on stdin and stdout
	@$(BIN)/mcp-bus serve

# Tests start thousands of processes; not to compile the package in each of them is half of their time.
test: $(VENV)/.dev ## run all tests, the examples in the docs among them
	@$(BIN)/python -m compileall -q mcp_bus
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.dev ## format, lint, types, layers, limits, texts, changelog
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.check_limits
	$(BIN)/python -m tools.check_texts
	@said=$$($(BIN)/towncrier build --draft --version next 2>&1) || { echo "$$said" >&2; exit 1; }

format: $(VENV)/.dev ## put the code into the one format, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.bench ## measure the bus, and the same load on other queues
	@$(BIN)/python -m benchmarks

soak: $(if $(wildcard benchmarks/soak*),$(VENV)/.dev,not-yet-soak) ## the long runs: cuts, kills and leaks
	@$(BIN)/python -m benchmarks.soak $(SOAK_ARGS)

mutants: $(VENV)/.dev ## plant known faults, one at a time: the tests must find each
	@$(BIN)/python -m tools.mutants $(MUTANTS_ARGS)

e2e: $(if $(wildcard e2e),$(VENV)/.dev,not-yet-e2e) ## real MCP clients against a scripted model
	@$(BIN)/python -m pytest e2e $(E2E_ARGS)

bundle: $(VENV)/.runtime ## build the bundle for Claude Desktop, dist/*.mcpb
	@$(BIN)/python -m tools.bundle

not-yet-%:
	@echo "make $*: not in this version" >&2; exit 2

# Hashes of all platforms, one resolution for every Python from 3.11 on, and no address of any index.
# `make lock LOCK_FLAGS=--upgrade` takes newer versions; without, only what pyproject.toml asks for changes.
RESOLVE = $(or $(UV),$(BIN)/uv) pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(LOCK_FLAGS)
lock: $(VENV)/.made ## renew requirements*.txt from pyproject.toml
	@[ -n "$(strip $(UV))" ] || $(INSTALL) uv
	$(RESOLVE) --group build --output-file requirements.txt
	$(RESOLVE) --group build --extra dev --constraints requirements.txt --output-file requirements-dev.txt
	$(RESOLVE) --group build --extra bench --constraints requirements.txt --output-file requirements-bench.txt

clean: ## remove all that make and the tools have made
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment; each stamp is newer than what it was made from -------------------------------

$(VENV)/.made:
	@[ -n "$(PYTHON)" ] || { echo "mcp-bus needs Python 3.11 or newer, and none is on PATH." >&2; \
		echo "If one is elsewhere: make PYTHON=/where/it/is/python3 test" >&2; exit 2; }
	@command -v "$(PYTHON)" >/dev/null || { echo "There is no $(PYTHON) on PATH." >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "mcp-bus needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>&1)." >&2; \
		echo "Name another: make PYTHON=python3.12 test" >&2; exit 2; }
	@echo "Making $(VENV), once, with $$("$(PYTHON)" --version 2>&1)$(if $(strip $(UV)), and uv)."
	@rm -rf $(VENV)
ifeq ($(strip $(UV)),)
	@"$(PYTHON)" -m venv $(VENV)
else
	@# With pip in it, so that a later call without uv can go on.
	@$(UV) venv --quiet --seed --no-project --python "$$("$(PYTHON)" -c 'import sys; print(sys.executable)')" $(VENV)
endif
	@touch $@

$(VENV)/.runtime: $(VENV)/.made requirements.txt pyproject.toml
	@echo "Installing what mcp-bus runs on."
	@$(INSTALL) --require-hashes --requirement requirements.txt
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.txt
	@echo "Installing what the tests and checks need."
	@$(INSTALL) --require-hashes --requirement requirements-dev.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.runtime requirements-bench.txt
	@echo "Installing the queues to compare with."
	@$(INSTALL) --require-hashes --requirement requirements-bench.txt
	@touch $@
