# `make demo` and `make test` set up everything they need in .venv, from Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test check clean

demo: $(READY)
	$(BIN)/conspec demo

test: check
	$(BIN)/pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Installing again is needed only when the list of dependencies changes.
$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "conspec needs Python 3.11 or newer; try make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,scip,build,ground,vnnlib,peers]'
	touch $(READY)

clean:
	rm -rf .venv demo-output build dist *.egg-info
