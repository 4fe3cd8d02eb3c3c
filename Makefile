# make demo and make test are all a newcomer types; `make help` lists the rest.
SHELL := /bin/bash
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
PYTHON := $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)

.PHONY: help setup demo test check bench soak ui page lock
help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

setup: .venv/installed ## the environment in .venv, exact versions from requirements.lock
.venv/installed: requirements.lock pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "captioning needs Python 3.11 or 3.12; found: $$(python3 --version 2>&1). Install one (Debian: apt-get install python3.11-venv) and run make again." >&2; exit 1; }
	@echo "Installing into .venv with $$($(PYTHON) --version) (one to three minutes)"
	@$(PYTHON) -m venv .venv && $(BIN)/python -m pip install -q --disable-pip-version-check uv
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install -q --compile-bytecode --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	@$(BIN)/python -m flows.links
	@touch $@

demo: setup ## the whole pipeline on generated pictures, then three captions (minutes)
	@dvc repro && captioning report

test: setup ## every test
	@ruff check . && ruff format --check . && mypy && lint-imports && OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile

check: setup ## style, types, import contracts and the fast tests, while you work
	@ruff check . && mypy && lint-imports && OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile -m "not slow and not soak"

bench: setup ## every side-by-side measurement, or ONLY=name (on an idle machine)
	@uv pip install -q -r bench/requirements.txt && python -m bench $(ONLY)

soak: setup ## fault campaigns: an hour of kills, and of retrains under them
	@pytest -m soak && python -m soak.kills && python -m soak.retrains

ui: setup ## Prefect and MLflow on this machine, addresses printed
	@python -m flows.ui

page: ## the web page of `captioning serve`, built from web/ anew (with Node 20 or later)
	@cd web && npm ci --no-fund --no-audit && npm run build

lock: setup ## resolve pyproject.toml anew into requirements.lock
	@uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -q -o requirements.lock
