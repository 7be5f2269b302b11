# Each target works on a fresh machine (python3 >= 3.11, a C compiler, make) by itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# What the compiled parts are made from: a change here rebuilds them (the install is editable: Python files are live).
SOURCES := pyproject.toml setup.py $(wildcard src/fastnn/_kernels/*.pyx src/fastnn/_kernels/*.pxd)

.PHONY: demo test bench bench-check bench-peers docs lint clean

demo: $(VENV)/.built $(VENV)/.extra-demo
	$(BIN)/python -m fastnn train --out runs/demo --force $(DEMO_OPTIONS)

test: $(VENV)/.built $(VENV)/.extra-test $(VENV)/.extra-demo
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

# fastnn alone; bench-peers runs the same cases beside PyTorch and JAX.
bench: $(VENV)/.built $(VENV)/.extra-test
	GOMP_SPINCOUNT=1000 OPENBLAS_THREAD_TIMEOUT=4 $(BIN)/python -m pytest bench --benchmark-only --passes 5 \
		--benchmark-columns=median,iqr,rounds --benchmark-json=bench.json $(BENCH_OPTIONS)

# Every case of the suite verified against its oracle, none timed.
bench-check: $(VENV)/.built $(VENV)/.extra-test
	$(BIN)/python -m pytest bench --benchmark-disable

bench-peers: $(VENV)/.built $(VENV)/.extra-test $(VENV)/.extra-demo $(VENV)/.extra-peers
	$(BIN)/python bench/peers.py $(BENCH_OPTIONS)

# The gallery runs the examples. Warnings are errors.
docs: $(VENV)/.built $(VENV)/.extra-docs $(VENV)/.extra-demo
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html

lint: $(VENV)/bin/python $(VENV)/.extra-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint src
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("fastnn needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.built: $(VENV)/bin/python $(SOURCES)
	$(PIP) --editable .
	touch $@

# The packages that an extra of pyproject.toml names, without building fastnn again.
$(VENV)/.extra-%: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][sys.argv[1]], sep="\n")' $* > $@.txt
	$(PIP) -r $@.txt
	touch $@

clean:
	rm -rf build dist runs docs/_build docs/gallery docs/api/generated src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
