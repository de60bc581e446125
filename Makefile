# Ballast's commands; `make help` explains them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python

.PHONY: help setup gen lock

help: ## Explain every command
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: ## Make .venv with everything that running, checking and testing need
	@scripts/setup.sh test
	@$(PYTHON) proto/build_hook.py

gen: ## Generate the wire stubs beside their .proto files
	@scripts/setup.sh demo
	@$(PYTHON) proto/build_hook.py

lock: ## Rewrite the hash-pinned requirements/*.txt from *.in with the newest versions
	@scripts/setup.sh demo
	@scripts/lock.sh
