# On a fresh machine with only Python and make: `make tutorial` or `make test`.
PYTHON ?= python3
T ?= 01

SHELL := /bin/bash
BIN := .venv/bin
READY := .venv/.ready
OLDEST := $(shell sed -n 's/.*"tensorflow>=\([0-9.]*\)".*/\1/p' pyproject.toml)

# TensorFlow's start-up lines, of which no variable silences the last two.
export TF_CPP_MIN_LOG_LEVEL ?= 3
export TF_ENABLE_ONEDNN_OPTS ?= 0
QUIET := 2> >(grep --line-buffered -v -e InitializeLog -e cudart_stub >&2)

.DEFAULT_GOAL := help

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@echo "Setting up .venv (TensorFlow takes a minute or two) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	@touch $@

tutorial: $(READY) ## run a tutorial: make tutorial, or make tutorial T=03
	@echo "Read along: $$(ls tutorials/$(T)_*.ipynb), on GitHub, in an editor or in Jupyter."
	@$(BIN)/python tutorials/$(T)_*.py $(QUIET)

lab: $(READY) ## open the tutorials in JupyterLab (installs it the first time)
	@test -x $(BIN)/jupyter-lab || $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[lab]'
	@cd tutorials && ../$(BIN)/jupyter-lab 01_one_variable.ipynb

test: $(READY) ## run every test
	@$(BIN)/python -m pytest -q $(QUIET)

test-oldest: .venv-oldest/.ready ## run every test against the oldest TensorFlow that pyproject.toml promises
	@.venv-oldest/bin/python -m pytest -q $(QUIET)

.venv-oldest/.ready: pyproject.toml
	@echo "Setting up .venv-oldest with TensorFlow $(OLDEST) ..."
	@test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	@.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check 'tensorflow==$(OLDEST).*' --editable '.[test,dev]'
	@touch $@

lint: $(READY) ## check style, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

notebooks: $(READY) ## make and execute the notebooks; one: make notebooks T=03
	@$(BIN)/python tutorials/make_notebooks.py $(if $(filter command line,$(origin T)),$(T)) $(QUIET)

bench: $(READY) ## measure the costs, side by side
	@$(BIN)/python -m tests.benchmarks $(QUIET)

.PHONY: help tutorial lab test test-oldest lint notebooks bench
