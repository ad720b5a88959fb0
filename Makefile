# Every target sets up .venv by itself, from the pinned constraints, when it is missing or stale.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help verify test test-quick test-all seconds lint format bench docs faults matrix matrix-packages processors release-check package types clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxopt_port needs Python 3.11 or newer; try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

verify: $(STAMP) ## train the LeNet recipes in both frameworks and report parity
	$(BIN)/jaxopt-port verify

PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test: $(STAMP) ## lint, types, the site and the tests: of each, 0.7 seconds of its cases
	@$(MAKE) --no-print-directory --jobs 2 lint docs
	$(PYTEST) --budget=test

test-quick: $(STAMP) ## the tests alone: of each, a twenty-fifth of a second of its cases
	$(PYTEST) --budget=quick

test-all: lint docs ## every case of every test
	$(PYTEST)
	JAXOPT_PORT_KERNELS=off $(PYTEST) --budget=quick $(PLAIN:%=parity_tests/%)

seconds: $(STAMP) ## the tests of make test; writes what each takes, by which the shorter runs choose
	$(PYTEST) --budget=test --record

# Where a kernel would hide what XLA makes of a step.
PLAIN := optim engine loops contrib lr_scheduler flax interop

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## measure; see benchmarks/README.md
	$(BIN)/python -m benchmarks

docs: $(STAMP) ## build the site into site/; a broken link or a name without documents fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

faults: $(STAMP) ## break the package, in one fact at a time: test-quick must see each
	$(BIN)/python -m parity_tests.faults

MATRIX := .venv-matrix/contrib
PACKAGES := parity_tests/contrib/requirements.txt parity_tests/interop/requirements.txt
# On top of what .venv has: timm asks for a torchvision that asks for another torch.
$(MATRIX)/.installed: constraints.txt pyproject.toml $(PACKAGES)
	$(PYTHON) -m venv --clear $(MATRIX)
	$(MATRIX)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(MATRIX)/bin/python -m pip install --quiet --no-deps $(PACKAGES:%=--requirement %)
	-$(MATRIX)/bin/python -m pip install --quiet --no-deps $(MUON)
	@touch $@

# Not on PyPI; where it cannot be had, the matrix says that it is left out.
MUON := git+https://github.com/KellerJordan/Muon@857d1adc159e098212f828d927460782d3da59e9

matrix: $(STAMP) matrix-packages ## the lowest and the newest versions; contrib and interop beside the packages themselves
	$(BIN)/python -m parity_tests.environments

matrix-packages: $(MATRIX)/.installed
	$(MATRIX)/bin/python -m parity_tests.contrib.matrix
	$(MATRIX)/bin/python -m parity_tests.contrib.state_memory
	$(MATRIX)/bin/python -m parity_tests.interop.real_libraries

processors: $(STAMP) ## the tests as XLA and MKL would compile and choose for Intel's processors (Linux, x86-64)
	$(BIN)/python -m parity_tests.environments.processors

RELEASE := .venv-release
$(RELEASE)/.installed: constraints.txt
	$(PYTHON) -m venv --clear $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --constraint constraints.txt build twine basedpyright
	@touch $@

release-check: test package types ## all of a release but the upload

package: $(RELEASE)/.installed ## build sdist and wheel, check them, and use the wheel where there is no torch
	rm -rf dist
	$(RELEASE)/bin/python -m build --quiet
	$(RELEASE)/bin/twine check --strict dist/*
	$(PYTHON) -m venv --clear $(RELEASE)/bare
	$(RELEASE)/bare/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	$(RELEASE)/bare/bin/python -I parity_tests/project/smoke.py

types: $(STAMP) $(RELEASE)/.installed ## pyright, strictly, on the code of the documents
	$(BIN)/python -m parity_tests.project.typed_documents $(RELEASE)/documents
	$(RELEASE)/bin/basedpyright --pythonpath $(BIN)/python --project $(RELEASE)/documents

clean: ## remove what the other targets made
	rm -rf .venv .venv-matrix $(RELEASE) dist site .mypy_cache .pytest_cache .ruff_cache
