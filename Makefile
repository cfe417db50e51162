# Everything there is to know: `make demo`, `make test`, `make check`. Each sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A stamp for each way of installing, so that HEADRACE_COMPILED=0 and without it are told apart.
MODE := $(if $(filter 0,$(HEADRACE_COMPILED)),interpreted,compiled)
STAMP := $(VENV)/.headrace-$(MODE)
INTERPRETED := $(VENV)/interpreted
ROUTER := services/router

.PHONY: demo test test-interpreted check protos bench microbench clean setup setup-tests format

setup: $(STAMP)

# The constraints file pins what was tested. A second run finds the stamp and does nothing, unless what is compiled, or is
# imported there, has changed (about a minute; HEADRACE_COMPILED=0 leaves the router's hot modules interpreted).
$(STAMP): pyproject.toml constraints.txt hatch_build.py hatch_compile.py $(ROUTER)/headrace_router/ingress/ingress.c \
  $(ROUTER)/compiled.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "headrace needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Set PYTHON=..." >&2; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { echo "cannot make $(VENV); on Debian install python3-venv" >&2; exit 2; }
	@rm -f $(VENV)/.headrace-* && touch $(VENV)/.begun
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,redis,postgres,tensorrt-rtx]'
	@mv $(VENV)/.begun $@

-include build/native/sources.mk

# Tests and checks want torch too, which the demo and the mesh do not: it is the largest thing here by far.
setup-tests: $(STAMP)-torch

$(STAMP)-torch: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev-torch]'
	@touch $@

demo: setup
	$(BIN)/python -m headrace.demo

# As many at once as there are cores; `-n 0` has one process run all of them.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

test: setup-tests
	$(PYTEST)

# The router's tests once more with its hot modules interpreted, as they are where there is no compiler; and the budgets of
# operations, which only interpreted code can be held to.
test-interpreted: setup-tests
	rm -rf $(INTERPRETED) && mkdir $(INTERPRETED)
	cp -r services/router/headrace_router $(INTERPRETED)/ && rm -f $(INTERPRETED)/headrace_router/compiled.*.json
	find $(INTERPRETED) -name '*.so' ! -name ingress.so -delete
	PYTHONPATH=$(INTERPRETED) $(BIN)/python -c 'from headrace_router import compiled; assert not compiled.count()'
	PYTHONPATH=$(INTERPRETED) $(PYTEST) tests/router tests/oip tests/microbench

check: setup-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --check
	$(BIN)/python protos/generate.py --image $(VENV)/protos.binpb
	$(BIN)/buf lint $(VENV)/protos.binpb --config protos/buf.yaml

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: setup
	$(BIN)/python protos/generate.py

# Installs the peers below .cache/bench, measures (about half an hour), writes docs/benchmarks.md.
bench: setup
	@command -v h2load >/dev/null || { echo "make bench needs h2load; on Debian: apt-get install nghttp2-client" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

# Times of the hot route's steps; that they do not become dearer is tested in `make test`, by counting.
microbench: setup
	$(BIN)/python -m pytest tests/microbench -p no:randomly --benchmark-enable --benchmark-only

clean:
	find services -name '*.so' -delete
	rm -rf $(ROUTER)/headrace_router/compiled.*.json $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
