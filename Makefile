# On a fresh machine with only Python and make: `make tutorial` or `make test`.
PYTHON ?= python3
T ?= 01

SHELL := /bin/bash
# Each Python has an environment of its own: .venv for python3, .venv-python3.13 for PYTHON=python3.13.
VENV := .venv$(patsubst %,-%,$(filter-out python3,$(notdir $(PYTHON))))
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALL := -m pip install --quiet --disable-pip-version-check
# The lower bounds of pyproject.toml as pins (tensorflow==2.18 numpy==1.26 matplotlib==3.6), and a pyparsing and a
# matplotlib-inline of those years: later ones do not go with matplotlib 3.6. Python 3.10 and 3.11 have wheels of all.
OLDEST := $(shell sed -n 's/^dependencies = //p' pyproject.toml | tr -d '[],"' | sed 's/>=/==/g') pyparsing==3.0.9 matplotlib-inline==0.1.7

# TensorFlow's start-up lines, of which no variable silences the last two.
export TF_CPP_MIN_LOG_LEVEL ?= 3
export TF_ENABLE_ONEDNN_OPTS ?= 0
QUIET := 2> >(grep --line-buffered -v -e InitializeLog -e cudart_stub >&2)

# One process for each core: half the time. A file stays in one process, for what its tests share.
TESTS := -q --numprocesses auto --dist loadfile

.DEFAULT_GOAL := help

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@echo "Setting up $(VENV) (TensorFlow takes a minute or two) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(INSTALL) --editable '.[test,dev]'
	@touch $@

tutorial: $(READY) ## run a tutorial: make tutorial, or make tutorial T=03
	@echo "Read along: $$(ls tutorials/$(T)_*.ipynb), on GitHub, in an editor or in Jupyter."
	@$(BIN)/python tutorials/$(T)_*.py $(QUIET)

lab: $(READY) ## open the tutorials in JupyterLab (installs it the first time)
	@test -x $(BIN)/jupyter-lab || $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[lab]'
	@cd tutorials && ../$(BIN)/jupyter-lab 01_one_variable.ipynb

test: $(READY) ## run every test
	@$(BIN)/python -m pytest $(TESTS) $(QUIET)

test-oldest: $(VENV)-oldest/.ready ## run every test with the oldest versions that pyproject.toml promises
	@$(VENV)-oldest/bin/python -m pytest $(TESTS) $(QUIET)

$(VENV)-oldest/.ready: pyproject.toml
	@echo "Setting up $(VENV)-oldest with $(OLDEST) ..."
	@test -x $(VENV)-oldest/bin/python || $(PYTHON) -m venv $(VENV)-oldest
	@$(VENV)-oldest/bin/python $(INSTALL) $(OLDEST) --editable '.[test,dev]'
	@touch $@

test-wheel: ## build the wheel, install it in a new environment, run README's examples there
	@rm -rf $(VENV)-wheel && $(PYTHON) -m venv $(VENV)-wheel
	@$(VENV)-wheel/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w $(VENV)-wheel/dist .
	@$(VENV)-wheel/bin/python $(INSTALL) $(VENV)-wheel/dist/*.whl pytest
	@cd $(VENV)-wheel && MPLBACKEND=Agg bin/python -m pytest -q -c ../pyproject.toml --rootdir . ../README.md $(QUIET)

lint: $(READY) ## check style, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

notebooks: $(READY) ## make and execute the notebooks; one: make notebooks T=03
	@$(BIN)/python tutorials/make_notebooks.py $(if $(filter command line,$(origin T)),$(T)) $(QUIET)

bench: $(READY) ## measure the costs, side by side
	@$(BIN)/python -m tests.benchmarks $(QUIET)

.PHONY: help tutorial lab test test-oldest test-wheel lint notebooks bench
