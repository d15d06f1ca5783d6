# Two commands: `make demo` shows everything, `make test` proves it. `make help` lists the rest.
# A cluster of your own instead of the local one: KUBECONFIG=FILE REGISTRY=HOST:PORT [REGISTRY_PLAIN_HTTP=1] make demo
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
PY := PYTHONPATH=operator:images/kit:images/trainer:images/quantizer:images/edge:images/bench:. .venv/bin/python
BIN = $(shell $(PY) -m tests.cluster where helm)

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s $$'\t'

venv: .venv/.stamp ## Python environment from constraints/dev.txt
.venv/.stamp: constraints/dev.txt
	@$(PYTHON) -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
	  "$(PYTHON) with venv, 3.11 or newer, is needed: apt-get install python3-venv, or make PYTHON=/path/to/python" >&2; exit 1; }
	@test -x .venv/bin/pip || $(PYTHON) -m venv --clear .venv
	@# The file names all of them. pip would resolve pydantic[email] of a dependency's dependency anew, without a hash.
	.venv/bin/pip install -q --disable-pip-version-check --no-deps --require-hashes -r constraints/dev.txt
	@touch $@

demo: venv ## From an empty machine to a model that answers on edge nodes
	@$(PY) -m demo

cluster: venv ## Start the local Kubernetes (or look at the one of KUBECONFIG)
	@$(PY) -m tests.cluster up

cluster-down: venv ## Stop it; what it has learned stays on disk
	@$(PY) -m tests.cluster down

images: venv ## Build the images and push them to the cluster's registry
	@$(PY) -m demo images

test: test-local ## All that needs no cluster, and cluster tests; what CI runs
	@$(PY) -m demo images
	@$(PY) -m pytest -q -p no:xdist --durations=40 -m "not long" tests/e2e

test-all: test-local ## Those and the long ones, which train or convert many models
	@$(PY) -m demo images
	@$(PY) -m pytest -q -p no:xdist --durations=40 tests/e2e

# Each process rewrites all test modules, so their bytecode is kept, whatever the environment says.
PYTEST = PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -q -n auto --dist worksteal -m "not cluster"

test-unit: venv ## In under a minute: tests of functions, which start no process and no server
	@$(PYTEST) tests/unit

test-local: venv ## All tests that need no cluster: unit, integration and property tests
	@$(PYTEST) tests/unit tests/integration tests/properties

bench: venv ## Benchmarks: figures against their targets
	@$(PY) -m bench --check
	@$(PY) -m demo images
	@$(PY) -m bench

lint: venv ## ruff, mypy, import layers, generated files, chart
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	MYPYPATH=operator .venv/bin/mypy operator/slmops
	MYPYPATH=operator:images/kit:images/bench:images/edge .venv/bin/mypy images/kit/slmkit images/bench/slm_bench demo bench tests/cluster
	PYTHONPATH=operator .venv/bin/lint-imports
	$(PY) -m slmops.api.crd --check crds
	$(PY) -m slmops.api.crd --check charts/slmops/files/crds
	$(PY) -m slmops.api.reference --check
	$(BIN) lint --quiet charts/slmops --values charts/slmops/ci/values.yaml

crds: venv ## Generate the CRDs and the field reference from the API models
	$(PY) -m slmops.api.crd crds
	$(PY) -m slmops.api.crd charts/slmops/files/crds
	$(PY) -m slmops.api.reference

.PHONY: help venv demo cluster cluster-down images test test-all test-unit test-local bench lint crds
