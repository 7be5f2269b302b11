# Each target works on a fresh machine (python3 >= 3.11, a C compiler, make) by itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# What the compiled parts are made from: a change here rebuilds them (the install is editable: Python files are live).
SOURCES := pyproject.toml setup.py $(wildcard $(addprefix src/fastnn/_kernels/*.,pyx pxd h))

.PHONY: demo test bench bench-check bench-peers docs lint fuzz sanitize qemu aarch64 sdist clean

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

fuzz: $(VENV)/.built $(VENV)/.extra-test
	$(BIN)/python tests/fuzzing.py --calls $(or $(CALLS),1000000) --seed $(or $(SEED),0)

# The tests of kernels and arguments on builds that check every access and every undefined operation. Leaks are not
# looked for: an interpreter frees little at its end. Tests that start other programs or count modules are left out.
# SANITIZE=thread: every operation in several threads on a build that checks for data races, in the kernels and in the
# thread team; not seen are races inside Python and NumPy, which are not built for it. (test_team.py has the team alone.)
SANITIZE ?= address,undefined
CHECKED := $(addprefix tests/test_,activation bounds conv dropout elementwise_loss errors faults fuzzing gradients layers \
	layouts linear loss norm norm_bits norm_errors norm_exact norm_layers optim pool random softmax train)
CHECK := $(if $(filter thread,$(SANITIZE)),tests/stress.py --operations 4,\
	-m pytest -m "not peers and not large" $(or $(SANITIZE_OPTIONS),$(CHECKED:=.py)))
SANITIZED := build/sanitize-$(SANITIZE)
COMMA := ,
LIBRARIES = $(foreach name,$(subst address,asan,$(subst undefined,ubsan,$(subst thread,tsan,$(subst $(COMMA), ,$(SANITIZE))))),\
	$$($(CC) -print-file-name=lib$(name).so))
sanitize: $(VENV)/.built $(VENV)/.extra-test
	$(PIP) "setuptools>=77" "cython>=3.1" "numpy>=2.0"
	FASTNN_SANITIZE=$(SANITIZE) $(BIN)/python setup.py --quiet build --build-base $(SANITIZED) --build-lib $(SANITIZED)/lib
	LD_PRELOAD="$(LIBRARIES)" PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=$(SANITIZED)/lib $(BIN)/python $(CHECK)

# The older builds on processors as old (needs qemu-user; NumPy's BLAS must not be told of another processor). Left out is
# cross-entropy: QEMU 7.2 reads what an AVX2 load masks out, so that _mm256_maskload_ps(p, zeros) ends a program of ten
# lines when p is NULL or before a page that may not be read. Real processors load nothing there, as is documented.
OLD := $(addprefix tests/test_,activation conv dropout elementwise_loss linear norm norm_bits pool random softmax)
qemu: $(VENV)/.built $(VENV)/.extra-test
	for cpu in Nehalem Haswell; do \
	env -u OPENBLAS_CORETYPE -u FASTNN_ISA qemu-x86_64 -cpu $$cpu $(BIN)/python -c "from fastnn import _kernels as k; print('$$cpu', k.ISA)" && \
	env -u OPENBLAS_CORETYPE -u FASTNN_ISA qemu-x86_64 -cpu $$cpu $(BIN)/python -m pytest -m "not peers and not large" \
	-p no:cacheprovider $(or $(QEMU_OPTIONS),$(OLD:=.py)) || exit 1; done

# 64-bit ARM, emulated: the generic build, cross-compiled, under Debian 12's Python and with PyPI's NumPy for that processor
# (needs mmdebstrap, gcc-aarch64-linux-gnu and qemu-user). Left out is what forks beside computing threads: there QEMU 7.2
# ends with failed assertions of its own.
ARM := $(CURDIR)/build/aarch64
ARM_TESTS := $(OLD) $(addprefix tests/test_,layouts optim loss errors memory threads)
aarch64: $(ARM)/.ready $(VENV)/bin/python
	$(PIP) "setuptools>=77" "cython>=3.1" "numpy>=2.0"
	_PYTHON_SYSCONFIGDATA_NAME=_sysconfigdata__aarch64-linux-gnu _PYTHON_HOST_PLATFORM=linux-aarch64 FASTNN_BUILD_ISA=generic \
	PYTHONPATH=$(ARM)/sysconfig CC=aarch64-linux-gnu-gcc LDSHARED="aarch64-linux-gnu-gcc -shared" \
	CFLAGS="-I$(ARM)/root/usr/include/python3.11 -I$(ARM)/root/usr/include -I$(ARM)/site/numpy/_core/include" \
	$(BIN)/python setup.py --quiet build --build-base $(ARM)/build --build-lib $(ARM)/lib
	env -u OPENBLAS_CORETYPE -u FASTNN_ISA $(ARM)/python -m pytest -m "not peers and not large" -k "not stress" \
	-p no:cacheprovider $(or $(ARM_OPTIONS),$(ARM_TESTS:=.py))

$(ARM)/.ready: $(VENV)/bin/python $(VENV)/.extra-test
	rm -rf $(ARM)
	mkdir -p $(ARM)/sysconfig
	mmdebstrap --quiet --arch=arm64 --variant=extract --include=python3.11,libpython3.11-dev,libstdc++6 bookworm $(ARM)/root
	cp $(ARM)/root/usr/lib/python3.11/_sysconfigdata__aarch64-linux-gnu.py $(ARM)/sysconfig
	$(PIP) --target $(ARM)/site --only-binary=:all: --python-version 3.11 --platform manylinux_2_28_aarch64 \
	--platform manylinux2014_aarch64 scipy -r $(VENV)/.extra-test.txt
	printf '%s\n' '#!/bin/sh' 'PYTHONHOME=$(ARM)/root/usr PYTHONPATH=$(ARM)/lib:$(ARM)/site \' \
	'exec qemu-aarch64 -L $(ARM)/root -0 "$$0" $(ARM)/root/usr/bin/python3.11 "$$@"' > $(ARM)/python
	chmod +x $(ARM)/python
	touch $@

# What a user gets who has only the sdist: it is built and installed in an environment of its own, then used.
sdist: $(VENV)/bin/python
	$(PIP) build
	$(BIN)/python -m build --quiet --sdist --outdir build/sdist
	rm -rf build/clean && $(PYTHON) -m venv build/clean
	FASTNN_THREADS=none FASTNN_BUILD_ISA=$(or $(SDIST_ISA),generic) build/clean/bin/python -m pip install --quiet \
	--disable-pip-version-check --no-binary fastnn build/sdist/fastnn-*.tar.gz
	cd build/clean && bin/python -I -c "import numpy as np, fastnn, fastnn.functional as F; \
	y = F.layer_norm(np.arange(6.0).reshape(2, 3), 3); assert abs(y[0, 0] + y[0, 2]) < 1e-12, y; \
	assert fastnn._kernels.team_kind() == 'none' and fastnn.get_num_threads() == 1; fastnn.show_config()"

clean:
	rm -rf build dist runs docs/_build docs/gallery docs/api/generated src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
