# Two commands: `make demo` shows everything, `make test` proves it. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
PY := PYTHONPATH=operator:images/kit:images/trainer:images/quantizer:images/edge:images/bench:. .venv/bin/python
REGISTRY ?= registry.slm.local:5000
IMAGES := .cache/images.json

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s:

venv: .venv/.stamp ## Python environment from constraints/dev.txt
.venv/.stamp: constraints/dev.txt
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/pip install -q --disable-pip-version-check --require-hashes -r constraints/dev.txt
	@touch $@

preflight: venv ## Say what this machine lacks
	$(PY) -m tests.cluster preflight

demo: venv ## From an empty machine to a model that answers on edge nodes
	$(PY) -m demo

cluster: venv ## Start the local Kubernetes
	$(PY) -m tests.cluster up

cluster-down: venv ## Stop it
	$(PY) -m tests.cluster down

images: cluster ## Build the images and push them to the cluster's registry
	$(PY) images/build.py --plain-http --registry $(REGISTRY) --output $(IMAGES)

test: cluster images ## Everything: unit, property and cluster tests
	$(PY) -m pytest -q

test-unit: venv ## Tests that need no cluster
	$(PY) -m pytest -q -m "not cluster"

lint: venv ## ruff, mypy, import layers, generated files, chart
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	MYPYPATH=operator .venv/bin/mypy operator/slmops
	PYTHONPATH=operator .venv/bin/lint-imports
	$(PY) -m slmops.api.crd --check crds
	$(PY) -m slmops.api.crd --check charts/slmops/files/crds

crds: venv ## Generate the CRDs from the API models
	$(PY) -m slmops.api.crd crds
	$(PY) -m slmops.api.crd charts/slmops/files/crds

.PHONY: help venv preflight demo cluster cluster-down images test test-unit lint crds
