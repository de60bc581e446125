# Ballast's commands; `make help` explains them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python

# What `make demo` passes on: make demo ONCE=1 CAPTURES=DIR PRICES=FILE.csv SEED=N
DEMO_FLAGS = $(if $(ONCE),--once) $(if $(CAPTURES),--captures "$(CAPTURES)") $(if $(PRICES),--prices "$(PRICES)") $(if $(SEED),--seed "$(SEED)")

# Tests that start servers and mostly wait for them: three at a time, after all others have run on every core.
APART = tests/integration tests/e2e

.PHONY: help setup gen check test demo bench soak lock environment

help: ## Explain every command
	@echo "Ballast:"
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16
	@echo "  In a hurry: make demo. Its switches: ONCE=1 CAPTURES=DIR PRICES=FILE.csv SEED=N"

environment:
	@scripts/setup.sh demo
	@$(PYTHON) proto/build_hook.py
	@$(PYTHON) scripts/build_console.py

demo: environment ## Run the whole story on two simulated sites; ONCE=1 runs it headless and judges it
	@exec .venv/bin/ballast demo $(DEMO_FLAGS)

test: setup ## Install what tests need, then run them all
	@scripts/system_packages.sh
	@$(PYTHON) -m pytest -q -n auto --dist worksteal $(APART:%=--ignore=%) --cov --cov-report=
	@$(PYTHON) -m pytest -q -n 3 --dist load --maxschedchunk=1 $(APART) --cov --cov-append --cov-report=json:.cache/coverage.json
	@$(PYTHON) scripts/coverage_bar.py .cache/coverage.json

check: setup ## Lint, types, import contracts, fresh stubs, architecture tests: no system package needed
	@$(PYTHON) proto/build_hook.py --check
	@.venv/bin/ruff check --quiet
	@.venv/bin/ruff format --check --quiet || { echo "check: run .venv/bin/ruff format" >&2; exit 1; }
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/lint-imports --no-logo --cache-dir .cache/import-linter
	@$(PYTHON) -m pytest -q tests/architecture

setup: ## Make .venv with everything that running, checking and testing need
	@scripts/setup.sh test
	@$(PYTHON) proto/build_hook.py
	@$(PYTHON) scripts/build_console.py

gen: ## Generate the wire stubs beside their .proto files
	@scripts/setup.sh demo
	@$(PYTHON) proto/build_hook.py

bench: setup ## Run every bench in its quick form, one JSON line each (make bench BENCH=poll for one)
	@scripts/bench.sh --quick $(BENCH)

soak: setup ## Run every bench at the size of its bar, then both fuzzers for 5 minutes each; takes an hour or more
	@scripts/bench.sh "" $(BENCH)
	@$(if $(BENCH),true,$(PYTHON) -m tests.fuzz --seconds 300)

lock: ## Rewrite the hash-pinned requirements/*.txt from *.in with the newest versions
	@scripts/setup.sh demo
	@scripts/lock.sh
