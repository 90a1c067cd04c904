# Every command a developer needs. Works from a bare Python 3.11: uv is used where it is there, and fetched where it is not.
.DEFAULT_GOAL := help
.PHONY: help install demo test test-system chaos lint format bench profile constraints clean
SHELL := /bin/bash

BIN := .venv/bin
STAMP := .venv/.installed
# Debian packages that the system tests drive.
SYSTEM_PACKAGES := chromium

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## put everything into .venv; does nothing while it is up to date

$(STAMP): pyproject.toml constraints.txt
	@set -euo pipefail; \
	for python in python3 python3.13 python3.12 python3.11 none; do \
	  [ $$python != none ] || { echo "eddyline needs Python 3.11 or newer: none of python3, python3.11 to python3.13 is" >&2; exit 1; }; \
	  ! $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || break; \
	done; \
	if uv --version >/dev/null 2>&1; then uv=uv; \
	elif [ -x $(BIN)/uv ]; then uv=$(BIN)/uv; \
	elif [ -x .venv-uv/bin/uv ]; then uv=.venv-uv/bin/uv; \
	else \
	  echo "fetching uv, which installs the rest"; \
	  if $$python -m venv .venv 2>/dev/null && $(BIN)/python -m pip install -q uv; then uv=$(BIN)/uv; \
	  else \
	    rm -rf .venv; \
	    $$python -m pip install -q --target .venv-uv uv || { echo "neither venv nor pip works with $$python: install uv, or python3-venv" >&2; exit 1; }; \
	    uv=.venv-uv/bin/uv; \
	  fi; \
	fi; \
	[ -x $(BIN)/python ] || $$uv venv -q --python "$$($$python -c 'import sys; print(sys.executable)')" .venv; \
	if nvidia-smi -L >/dev/null 2>&1; then extra=gpu; else extra=cpu; fi; \
	echo "installing eddyline[$$extra,local,dev] into .venv"; \
	$$uv pip install --python $(BIN)/python -c constraints.txt -e ".[$$extra,local,dev]"; \
	$(BIN)/eddyline broker install; \
	touch $@

demo: install ## all of it on this machine; ARGS="--help" lists its options
	@$(BIN)/eddyline demo $(ARGS)

test: install ## the tests, on a real broker that they start themselves; ARGS narrows them
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 4 --dist worksteal tests $(ARGS)

test-system: install ## the tests that drive the product as a user does; installs the Debian packages they need
	@set -euo pipefail; \
	for package in $(SYSTEM_PACKAGES); do \
	  command -v $$package >/dev/null || missing="$${missing:-} $$package"; \
	done; \
	if [ -n "$${missing:-}" ]; then \
	  if [ "$$(id -u)" = 0 ]; then as_root=; else as_root=sudo; fi; \
	  echo "installing$$missing"; \
	  $$as_root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$as_root apt-get install -qq -y $$missing >/dev/null; \
	fi; \
	$(BIN)/python -m pytest -q -m system tests $(ARGS)

chaos: install ## an hour of faults on a real broker, held against a known answer; ARGS="--minutes 3 --seed 7"
	@$(BIN)/python -m tests.chaos $(ARGS)

lint: install ## what CI checks: ruff, its formatting, pyright
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright

format: install ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: install ## NAME=ingest runs tests/bench/bench_ingest.py, with ARGS; without NAME the benches are listed
	@if [ -f "tests/bench/bench_$(NAME).py" ]; then exec $(BIN)/python -m tests.bench.bench_$(NAME) $(ARGS); fi; \
	shopt -s nullglob; \
	for bench in tests/bench/bench_*.py; do name=$${bench##*/bench_}; echo "  make bench NAME=$${name%.py}"; done; \
	[ -z "$(NAME)" ] || { echo "there is no bench $(NAME)" >&2; exit 2; }

PROFILED_ingest := --only eddyline --rounds 1
PROFILED_restore := --only eddyline --rounds 1
PROFILED_memory := --minutes 0
profile: install ## NAME=ingest draws the flame graph of that bench's eddyline worker to build/flame-ingest.svg
	@[ -n "$(PROFILED_$(NAME))" ] || { echo "NAME is one of: ingest, restore, memory" >&2; exit 2; }
	@$(BIN)/python -m tests.bench.bench_$(NAME) $(PROFILED_$(NAME)) --profile build/flame-$(NAME).svg $(ARGS)

constraints: install ## pin the newest versions that fit pyproject.toml
	@uv=$$(command -v uv || echo $(BIN)/uv); $$uv pip compile -q --upgrade --universal --python-version 3.11 --no-header --no-annotate \
	  --no-emit-index-url --extra cpu --extra gpu --extra local --extra dev pyproject.toml -o constraints.txt

clean: ## remove what running, testing and building left; .venv and downloads stay
	@rm -rf build dist .pytest_cache .ruff_cache .eddyline
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
