# From nothing: python3, pip and make. `make tune` tunes the default study, `make test` runs every test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
SERVERS := $(abspath $(VENV)/servers)
NEEDS_APT = @command -v apt-get >/dev/null || { echo "no apt-get here: put a $(@F) on the PATH yourself"; exit 1; }

.PHONY: setup tune test test-fast check schema prometheus servers clean

setup: $(STAMP)

# torch first: with it in place no later step is tempted by another build. Bytecode comes with the first import, of what is
# imported: to compile all of it takes longer than to unpack it.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt torch
	$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e '.[dev]'
	touch $(STAMP)

# Debian's Prometheus scrapes us in the tests, and its HAProxy and nginx stand before the services that the daemon changes.
# Unpacked beside python, not installed: no service, no user, no sudo.
prometheus: $(BIN)/prometheus
servers: $(BIN)/haproxy $(BIN)/nginx

$(BIN)/prometheus: | $(VENV)/.lists
	$(NEEDS_APT)
	unpacked=$$(mktemp -d) && trap 'rm -rf "$$unpacked"' EXIT && cd "$$unpacked" && \
		apt-get -qq download prometheus && dpkg -x prometheus_*.deb . && \
		install usr/bin/prometheus "$(abspath $@)"

# With the shared libraries that this machine lacks; the programs find them by the path in their wrapper.
$(BIN)/haproxy $(BIN)/nginx: $(BIN)/%: | $(VENV)/.lists
	$(NEEDS_APT)
	unpacked=$$(mktemp -d) && trap 'rm -rf "$$unpacked"' EXIT && cd "$$unpacked" && \
		lacking=$$(apt-get -s install --no-install-recommends $* | awk '/^Inst lib/ {print $$2}') && \
		apt-get -qq download $* $$lacking && for package in *.deb; do dpkg -x "$$package" . || exit 1; done && \
		mkdir -p "$(SERVERS)" && cp -a usr/sbin/$* "$(SERVERS)" && \
		find . -name '*.so*' -exec cp -a -t "$(SERVERS)" {} +
	printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s/%s" "$$@"\n' "$(SERVERS)" "$(SERVERS)" $* > $@
	chmod 755 $@

# One look at Debian's lists is enough for all of them.
$(VENV)/.lists: | $(STAMP)
	! command -v apt-get >/dev/null || test "$$(id -u)" != 0 || apt-get update -qq
	touch $@

tune: setup
	$(BIN)/autotune study start search_spaces/inference.yaml $(TUNE)

# Two files at a time; then, one by one, what measures time and must not be disturbed.
test: setup
	$(BIN)/python -m pytest -m "not alone" -n $(WORKERS) --dist loadfile
	$(BIN)/python -m pytest -m alone

# The core of the tests; `make test` runs the rooms left out here as well.
test-fast: setup
	$(BIN)/python -m pytest -m "not slow" --ignore tests/cli/test_bad_input.py --ignore tests/testing \
		--ignore tests/profiling \
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
