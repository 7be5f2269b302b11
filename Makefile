# Each target works on a fresh machine (python3 >= 3.11, a C compiler, make) by itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What the compiled parts are made from: a change here rebuilds them (the install is editable: Python files are live).
SOURCES := pyproject.toml setup.py $(wildcard src/fastnn/_kernels/*.pyx src/fastnn/_kernels/*.pxd)

.PHONY: demo test bench lint clean

demo: $(VENV)/.installed-demo
	$(BIN)/python -m fastnn train --out runs/demo $(DEMO_OPTIONS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

bench: $(VENV)/.installed-test
	$(BIN)/python -m pytest bench --benchmark-only $(PYTEST_OPTIONS)

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/cython-lint src
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("fastnn needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

clean:
	rm -rf build dist runs src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
