# Every target makes .venv when it is missing; nothing else has to be set up.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)
export DAGSTER_HOME ?= $(CURDIR)

.PHONY: demo test soak bench ui docs check install clean

demo: install ## Simulated scenes, a trained model, maps of two years and their evaluation
	$(BIN)/popcorn demo

ui: install ## Dagster's web interface and daemon, on this machine only
	$(BIN)/popcorn ui

test: install ## The whole test suite
	$(BIN)/python -m pytest -n 3 --dist loadfile

soak: install ## Kill the pipeline sixty times and see that nothing wrong is left; half an hour
	$(BIN)/python tests/crash/soak.py --kills $(or $(KILLS),60) --seed $(or $(SEED),1)

bench: install ## How fast a country is mapped, beside the published way; ten minutes on two idle cores
	$(BIN)/python -m benchmarks.mapping

docs: install ## The documentation as one book: site/index.html
	$(BIN)/python tools/remedies.py
	$(BIN)/zensical build --strict --clean

check: install ## Style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.14 is needed: install it, or make PYTHON=/path/to/python3.13"; exit 1; }
	@echo "Installing into $(VENV), once: a few minutes"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@

clean: ## Removes the environment, never data/
	rm -rf $(VENV) site .cache .mypy_cache .ruff_cache .pytest_cache *.egg-info
