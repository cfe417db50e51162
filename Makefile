# Everything there is to know: `make demo`, `make test`, `make check`. Each sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.headrace-installed
INTERPRETED := $(VENV)/interpreted
COMPILED := $(addprefix services/router/,$(shell cat services/router/compiled.txt))

.PHONY: demo test test-interpreted check protos bench microbench clean setup format

setup: $(STAMP)

# The constraints file pins what was tested. A second run finds the stamp and does nothing, unless what is compiled has
# changed (a minute; HEADRACE_COMPILED=0 make setup leaves the router's hot modules interpreted). TensorRT-RTX, which
# compiles without a GPU, is 100 MB to download and 240 MB on the disk.
$(STAMP): pyproject.toml constraints.txt hatch_build.py hatch_compile.py services/router/headrace_router/ingress/ingress.c \
  services/router/compiled.txt $(COMPILED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "headrace needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Set PYTHON=..." >&2; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { echo "cannot make $(VENV); on Debian install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,redis,postgres,tensorrt-rtx]'
	@touch $@

demo: setup
	$(BIN)/python -m headrace.demo

test: setup
	$(BIN)/python -m pytest

# The router's tests once more with its hot modules interpreted, as they are where there is no compiler; and the budgets of
# operations, which only interpreted code can be held to.
test-interpreted: setup
	rm -rf $(INTERPRETED) && mkdir $(INTERPRETED)
	cp -r services/router/headrace_router $(INTERPRETED)/ && rm -f $(INTERPRETED)/headrace_router/compiled.json
	find $(INTERPRETED) -name '*.so' ! -name ingress.so -delete
	PYTHONPATH=$(INTERPRETED) $(BIN)/python -c 'from headrace_router import compiled; assert not compiled.count()'
	PYTHONPATH=$(INTERPRETED) $(BIN)/python -m pytest tests/router tests/oip tests/microbench

check: setup
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
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
