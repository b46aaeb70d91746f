# Bare `make` prints this menu. Everything happens in .venv; nothing outside this folder is changed.

VENV ?= .venv
PY := $(VENV)/bin/python
SOURCES := pyproject.toml setup.py $(shell find src -name '*.py' -o -name '*.pxd' -o -name '*.sql' -o -name '*.lua' -o -name '*.toml')
PYTEST := $(PY) -m pytest
JSON ?=
ROWS ?= 1000000
UPDATES ?= 200000
SEEDS ?= 100000
SEED ?=
EXECUTIONS ?= 10000000
WORKERS ?= 2
AT_ONCE ?= 3
VERSIONS ?=
PLANS ?=
SUITES ?=
SINKS ?=
PARTS = $(abspath $(VENV))/faults.json
SHORT = FAULTS_PARTS=$(PARTS) $(PYTEST) tests/faults
FAULTS = FAULTS_FULL=1 FAULTS_PARTS=$(PARTS) FAULTS_JSON=$(abspath $(JSON)) $(PYTEST) tests/faults --durations=0

.DEFAULT_GOAL := help
.PHONY: help demo test test-pure test-all test-servers matrix faults faults-source faults-large simulate fuzz judge check bench bench-workers bench-source bench-verify bench-backfill clean

help: ## this menu
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.demo ## everything on an embedded PostgreSQL and Valkey, with a shop that sells
	@$(VENV)/bin/watcher demo

test: $(VENV)/.test test-pure ## every test that needs only Python packages: real PostgreSQL 18, real Valkey
	@rm -f $(PARTS); code=0; \
	$(PYTEST) --ignore=tests/faults -n auto --dist loadfile || code=1; \
	$(SHORT) -m 'quiet and not servers' || code=1; \
	$(SHORT) -m 'not quiet and not servers' -n $(AT_ONCE) --maxschedchunk=1 || code=1; \
	exit $$code

test-pure: $(VENV)/.test ## the tests of the compiled files once more, without compilation
	PYTHONPATH=src $(PYTEST) -q tests/events tests/decode tests/fuzz tests/oracle -n auto --dist loadfile

test-all: test check test-servers ## all of them

test-servers: $(VENV)/.test ## what needs other programs too: a PostgreSQL that is installed on this machine
	$(PYTEST) -m servers

matrix: $(VENV)/.test ## all that asks a server, on PostgreSQL 14 to 18 from npm (VERSIONS='14 18', SUITES=, JSON=file)
	cd tests && $(abspath $(PY)) -m matrix.run --servers $(abspath $(VENV))/servers \
	  $(if $(VERSIONS),--versions $(VERSIONS)) $(if $(SUITES),--suites $(SUITES)) $(if $(JSON),--json $(abspath $(JSON)))

faults: $(VENV)/.test ## every fault of delivery in its full form, about an hour (JSON=file, FAULTS_SEED=n, AT_ONCE=3)
	@rm -f $(PARTS); code=0; \
	$(FAULTS) -m 'quiet and not source and not servers' -s || code=1; \
	$(FAULTS) -m 'not quiet and not source and not large and not servers' -n $(AT_ONCE) --maxschedchunk=1 || code=1; \
	exit $$code

faults-source: $(VENV)/.test ## the same for schema changes, outbox and NOTIFY, backfill: what PostgreSQL says
	@rm -f $(PARTS); code=0; \
	$(FAULTS) -m 'quiet and source and not large and not servers' -s || code=1; \
	$(FAULTS) -m 'not quiet and source and not large and not servers' -n $(AT_ONCE) --maxschedchunk=1 || code=1; \
	exit $$code

faults-large: $(VENV)/.test ## transactions of millions of rows, thousands of tables, half an hour (JSON=file)
	@rm -f $(PARTS)
	$(FAULTS) -m 'large and not servers' -s

simulate: $(VENV)/.test ## a subscription's life over and over on a virtual clock, a seed each (SEEDS=100000, SEED=n again)
	cd tests && $(abspath $(PY)) -m simulation.many $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

fuzz: $(VENV)/.test ## broken bytes at every door of the decoder (EXECUTIONS=10000000)
	cd tests && $(abspath $(PY)) -m fuzz.many --executions $(EXECUTIONS)

judge: $(VENV)/.test ## PostgreSQL's own regression SQL, its tables compared one by one; fetched by apt (PLANS=, JSON=file)
	cd tests && $(abspath $(PY)) -m judge.run --fetched $(abspath $(VENV))/regress \
	  $(if $(PLANS),--plans $(PLANS)) $(if $(JSON),--json $(abspath $(JSON)))

check: $(VENV)/.check ## style, types, walls
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.test ## speed, as ratios in one run (ROWS=, UPDATES=, JSON=file)
	$(PY) benchmarks/bench.py --rows $(ROWS) --updates $(UPDATES) $(if $(JSON),--json $(JSON))

bench-workers: $(VENV)/.test ## what processes bring to functions that compute (WORKERS=, JSON=file)
	$(PY) benchmarks/workers.py --workers $(WORKERS) $(if $(JSON),--json $(JSON))

bench-source: $(VENV)/.test ## what a watcher costs the application's transactions (JSON=file)
	$(PY) benchmarks/source_cost.py $(if $(JSON),--json $(JSON))

bench-verify: $(VENV)/.test ## verifying a replica and a cache, three things found and mended (ROWS=, SINKS=, JSON=file)
	$(PY) benchmarks/verify.py --rows $(ROWS) $(if $(SINKS),--sinks $(SINKS)) $(if $(JSON),--json $(JSON))

bench-backfill: $(VENV)/.test ## how fast a table is read, beside one COPY (ROWS=, JSON=file)
	$(PY) benchmarks/backfill.py --rows $(ROWS) $(if $(JSON),--json $(JSON))

clean: ## remove the virtual environment and what builds leave behind
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A Python of 3.11 or later that can make virtual environments; the newest is not needed.
$(PY):
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
	  if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "making $(VENV) with $$($$python --version)"; exec $$python -m venv $(VENV); fi; done; \
	if command -v uv >/dev/null; then exec uv venv --seed --python '>=3.11' $(VENV); fi; \
	echo "Python 3.11 or later with venv is needed (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1

$(VENV)/.demo: $(PY) $(SOURCES)
	$(PY) -m pip install --quiet --disable-pip-version-check '.[demo]'
	@touch $@

$(VENV)/.test: $(PY) $(SOURCES)
	$(PY) -m pip install --quiet --disable-pip-version-check '.[test]'
	@touch $@ $(VENV)/.demo

$(VENV)/.check: $(VENV)/.test
	$(PY) -m pip install --quiet --disable-pip-version-check '.[test,check]'
	@touch $@
