# Every target sets itself up: a fresh clone needs Python 3.11 or later with pip and venv, and nothing else.
#
#   make demo           the tour: records a pipeline and a flow on real data, and replays them
#   make test           all tests; ARGS="-k name" passes options on
#   make check          lint, types, layers, protos
#   make setup          .venv alone; every target makes it where it is missing or out of date
#
#   make protos         generates sdk/dalsegno/v1 from protos/
#   make lock           resolves the locks again; ARGS=--upgrade moves to the newest versions
#   make clean          removes .venv, caches and build results
#
#   make bench          the figures, beside raw Postgres; ARGS="--only soak --size 100000" one part, at a size
#   make bench-scale    all of them at full size: a quarter of an hour, and some gigabytes of disk
#   make chaos          work while processes are killed; SECONDS=600 SEED=1 PLANNERS=3
#   make test-million   what statements read where a million invocations are stored; some minutes

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
INSTALLED := .venv/.installed
ARGS ?=
SECONDS ?= 60
PLANNERS ?= 3

# The first interpreter that is new enough and that runs: a version manager's shim may be on the PATH and do nothing.
CANDIDATES := python3.13 python3.12 python3.11 python3
USABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))

.PHONY: help setup demo test test-million chaos check protos bench bench-scale lock clean

help:
	@sed -n '/^SHELL/q; s/^# *//p' Makefile

setup: $(INSTALLED)

# Hashes are demanded of everything from the index; the project itself is built by the hatchling of the lock.
$(INSTALLED): requirements.lock pyproject.toml
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	    python=; \
	    for candidate in $(CANDIDATES); do \
	        if "$$candidate" -c '$(USABLE)' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
	    done; \
	    if [ -z "$$python" ]; then \
	        echo "make: no Python 3.11 or later with pip and venv among: $(CANDIDATES)." >&2; \
	        echo "Install one (Debian: apt install python3-venv) and run make again." >&2; \
	        exit 1; \
	    fi; \
	    echo "creating .venv with $$("$$python" --version)"; \
	    "$$python" -m venv --clear .venv; \
	fi
	@echo "installing requirements.lock"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	$(BIN)/dalsegno demo $(ARGS)

test: setup
	$(BIN)/python -m pytest tests/unit tests/store tests/rpc tests/e2e tests/chaos $(ARGS)

# Some minutes, and some gigabytes of disk; `make test` has the same with fewer.
test-million: setup
	$(BIN)/python -m pytest tests/store/test_plans_at_scale.py --rows=1000000 --override-ini timeout=900 $(ARGS)

# A seed reproduces the faults; without one, each run has others.
chaos: setup
	$(BIN)/python -m tests.chaos --seconds $(SECONDS) --planners $(PLANNERS) $(if $(SEED),--seed $(SEED)) $(ARGS)

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/python protos/breaking.py
	$(BIN)/python protos/generate.py --check

protos: setup
	$(BIN)/python protos/generate.py

# ARGS="--only soak --size 100000" measures one part, at a size.
bench: setup
	$(BIN)/python -m tests.benchmarks $(ARGS)

# The sizes of the budgets rather than those of every day: minutes, and some gigabytes of disk.
bench-scale: setup
	$(BIN)/python -m tests.benchmarks --scale $(ARGS)

# One resolution for every platform and every Python from 3.11. ARGS=--upgrade moves to the newest versions.
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock"
lock: setup
	$(COMPILE) --all-extras --group dev --output-file requirements.lock $(ARGS)
	$(COMPILE) --extra planner --extra executor --group build --constraint requirements.lock \
	    --output-file deploy/requirements.lock $(ARGS)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find sdk planner executor protos tests -name __pycache__ -type d -prune -exec rm -rf {} +
