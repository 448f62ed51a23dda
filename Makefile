# Everything here works on a fresh clone: each target first makes .venv with what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := echo tests benchmarks notebooks serve.py gradio_app.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-cluster check serve ui lab notebooks parity wheel format clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(VENV)/.base ## Speak a sentence on the CPU with the shipped model into demo.wav
	$(BIN)/echo-tts demo --out demo.wav

test: check ## Lint, types, import contract and all tests, on up to four cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

test-cluster: $(VENV)/.dev ## Two replicas on Ray: spread, killed, updated, with one set of voices
	$(BIN)/python -m pytest tests/cluster -m ""

check: $(VENV)/.dev ## Lint, types and import contract only
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: $(VENV)/.base ## Start the HTTP server; settings: make serve ARGS="preset=equal"
	$(BIN)/python serve.py $(ARGS)

ui: $(VENV)/.ui ## Start the Gradio UI; settings as for serve
	$(BIN)/python gradio_app.py $(ARGS)

lab: $(VENV)/.notebooks ## Open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

notebooks: $(VENV)/.dev ## Run the notebooks as they are; make test runs some, shortened
	$(BIN)/python -m pytest --nbval-lax --nbval-current-env notebooks

parity: $(VENV)/.dev ## Check every golden value; another folder: make parity FOLDER=...
	$(BIN)/python tests/parity.py $(or $(FOLDER),tests/data/parity)

wheel: $(VENV)/.dev ## Build dist/*.whl with settings, voices and the shipped model inside
	$(BIN)/python -m build --wheel --no-isolation

format: $(VENV)/.dev ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean: ## Remove .venv, caches and build outputs
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) (once; PyTorch is the big one)"
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.ui: $(VENV)/.base
	$(PIP) install -q -c constraints.txt -e ".[ui]"
	@touch $@

$(VENV)/.notebooks: $(VENV)/.base
	$(PIP) install -q -c constraints.txt -e ".[notebooks]"
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) install -q -c constraints.txt -e ".[dev]"
	@touch $@
