# Everything here makes its own environment: Python 3.11 or newer and make are enough.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MADE := $(VENV)/.made
CONSTRAINTS := $(wildcard constraints.txt)
TESTERS ?= 3
SOURCES := mcp_backup tests benchmarks examples

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench clean constraints

help:  ## say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 20

setup: $(MADE)  ## make the environment in .venv

$(MADE): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11; choose another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	  { echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo "making the environment in $(VENV), about a minute" >&2
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[test,lint]'
	@touch $@

demo: $(MADE)  ## back up, wreck and restore a live database, through MCP
	@$(BIN)/python examples/demo.py

test: lint  ## everything CI runs
	$(BIN)/pytest -q --numprocesses $(TESTERS) --dist worksteal

lint: $(MADE)  ## format, lint and types
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy $(SOURCES)

bench: $(MADE)  ## measure against restic and borg on a generated database
	$(BIN)/python -m benchmarks

constraints: $(MADE)  ## pin what is installed now, after upgrading it on purpose
	$(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools > constraints.txt

clean:  ## remove the environment and everything generated
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist benchmarks/.work
	find mcp_backup tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
