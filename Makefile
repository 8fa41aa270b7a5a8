# Two commands need nothing but Python 3.11 or newer: make demo, make test. CONTRIBUTING.md has more.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
WORKDIR ?= runs/demo

.PHONY: demo test unit lint docs format clean

demo: $(VENV)/installed
	$(BIN)/python -m experiments.reproduce --workdir=$(WORKDIR)

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses=8 --dist loadfile --no-loadscope-reorder

unit: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses=8 --dist loadfile --no-loadscope-reorder -m "not slow"

lint: $(VENV)/installed-test docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Strict: a broken link fails, and a name that the reference does not find. The site is build/site.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# bin/pip, not bin/python: a venv that failed for want of ensurepip leaves a python behind.
$(VENV)/bin/pip:
	@$(PYTHON) -m venv $(VENV) || { echo "No virtual environment; on Debian and Ubuntu, apt install python3-venv, then make again." >&2; exit 1; }

$(VENV)/installed: setup.py | $(VENV)/bin/pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-test: setup.py | $(VENV)/bin/pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/installed

$(VENV)/installed-docs: setup.py | $(VENV)/bin/pip
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/installed

# What else is in runs/ took hours, and is the user's.
clean:
	rm -rf $(VENV) build dist *.egg-info runs/demo
