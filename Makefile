# Everything a fresh machine needs: python3 (3.11 to 3.13) with venv and pip, and make. No compiler, no torch.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= auto
TESTS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := $(addprefix src/neuc/,compiler dialects passes backends runtime errors.py __init__.py __main__.py)

.PHONY: demo test test-slow test-torch lint bench wheel clean help

help:
	@echo "make demo       compile a real speech model to cpu-tl2, run it, verify it against onnxruntime"
	@echo "make test       the quick tests"
	@echo "make test-slow  the tests on real models, and of AArch64 code under an emulator"
	@echo "make lint       ruff and pyright"
	@echo "make bench      speed against onnxruntime"
	@echo "make wheel      build sdist and wheel, install the wheel elsewhere, try it"

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] < (3, 14) else "neuc needs Python 3.11 to 3.13, %s is %d.%d: make PYTHON=python3.12" % (sys.executable, *v[:2]))'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q $(SOURCES) # pip does so for packages; the first compile need not wait for it
	@touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py

# TESTS=tests/passes makes fewer of them; WORKERS=0 runs them in one process, as debuggers want it.
test: $(READY)
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(TESTS)

# ziglang links the AArch64 kernels, qemu runs them (Debian: qemu-user-static); without qemu these tests are skipped.
test-slow: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check ziglang==0.17.1
	$(BIN)/pytest -m slow

# Run with an environment that has torch: make test-torch VENV=.venv-torch
test-torch: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pytest -m torch

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(READY)
	$(BIN)/python examples/bench.py

wheel: $(READY)
	./.ci/wheel $(BIN)/python

clean:
	rm -rf dist build .pytest_cache .ruff_cache .hypothesis
