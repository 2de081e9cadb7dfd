# Everything a newcomer needs: `make demo`, `make test`, `make ui`. Set-up is done by whichever comes first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo test lint ui bench constraints clean
.DEFAULT_GOAL := setup

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || \
	  { echo "Python 3.12 or newer is needed; $(PYTHON) is $$($(PYTHON) --version). Use: make setup PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' || \
	  { echo "$(PYTHON) lacks venv; on Debian: apt-get install python3-venv" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $(READY)

# The whole graph on the shipped sample; what is up to date is not done again. Workspace: ./workspace, or
# PROCCORPUS_WORKSPACE
demo: setup
	$(BIN)/proccorpus demo

# Lint, format, types, then all tests
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

ui: setup
	$(BIN)/proccorpus ui

bench: setup
	$(BIN)/python benchmarks/ingest.py

# Pins, after a change of pyproject.toml
constraints: setup
	$(BIN)/uv pip compile --quiet --no-emit-index-url --python-version 3.12 \
	  --extra train --extra phash --extra cloud --extra dev pyproject.toml -o constraints.txt

clean:
	rm -rf workspace .dagster
