# From nothing: python3, pip and make. `make tune` tunes the default study, `make test` runs every test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup tune test test-fast check schema bench clean

setup: $(STAMP)

# torch first: with it in place no later step is tempted by another build.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $(STAMP)

tune: setup
	$(BIN)/autotune study start search_spaces/inference.yaml

test: setup
	$(BIN)/python -m pytest

# The core of the tests; `make test` runs the rooms left out here as well.
test-fast: setup
	$(BIN)/python -m pytest -m "not slow" --ignore tests/cli/test_bad_input.py --ignore tests/testing \
		--ignore tests/store/test_store_faults.py --ignore tests/store/test_store_kills.py \
		--ignore tests/verify/test_false_positives.py

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

schema: setup
	$(BIN)/autotune space schema > search_spaces/schema.json

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info
