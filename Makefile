# Two commands do everything: `make demo` and `make test`. The others are for those who change edgefn.
PYTHON ?= python3
BIN := .venv/bin
# As in `make demo SECONDS=30`; without it the demo runs until Ctrl-C.
SECONDS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench faults lock clean

help:  ## what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/.ready  ## make .venv with the locked packages; install mosquitto where it is missing

.venv/.ready: requirements/dev.txt requirements/broker.txt pyproject.toml tools/setup
	@PYTHON=$(PYTHON) tools/setup

demo: setup  ## the whole way, from sensors to a cloud that fails in the middle: make demo SECONDS=30
	@$(BIN)/edgefn demo $(if $(SECONDS),--seconds $(SECONDS))

test: setup  ## the whole test suite
	@tools/test

check: setup  ## lint and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

faults: setup  ## the long fault tests: hundreds of kills, a thousand power cuts, an hour
	@EDGEFN_FAULTS=long $(BIN)/python -m pytest -q -m faults tests/faults

bench: setup  ## one table of what edgefn costs on this machine, and bench/results/latest.json
	@$(BIN)/python -m bench

lock:  ## resolve requirements/*.txt anew (needs uv)
	@tools/lock

clean:  ## remove what the other targets made
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist bench/results
