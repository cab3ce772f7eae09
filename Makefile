# make reproduce   install into .venv, run the workflow on config.yaml; results/report/index.html shows everything
# make check       lint, types and the quick tests, in two minutes: what to run before a commit
# make test        the whole test suite
# make bless       compare what old and new code write, and record which versions of stages changed
# make benchmark   print what is fast and how fast, each against its bound in the same run
# make gpu-check   compare this machine's GPU with its CPU, in ten minutes (docs/gpu.md)
# make docs        build the documentation into site/
# make lint        formatting, static checks and types
# make schema      write the JSON Schema of the config
# make tfds        install into .venv-tfds what prepares sets of TensorFlow Datasets

PYTHON ?= python3
BIN := .venv/bin

.PHONY: install reproduce check test bless benchmark gpu-check docs lint schema tfds clean

install: .venv/installed

.venv/installed: envs/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement envs/requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

reproduce: install
	$(BIN)/snakemake --cores all
	@echo "Everything on one page: results/report/index.html"

check: lint
	$(BIN)/python -m pytest -n logical --no-loadscope-reorder -m "not slow" tests/unit

test: install
	$(BIN)/python -m pytest -n logical --no-loadscope-reorder

bless: install
	$(BIN)/python -m tests.bless $(ARGUMENTS)

benchmark: install
	$(BIN)/python -m tests.benchmarks

gpu-check: install
	$(BIN)/python -m tests.gpu

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/snakemake --lint

schema: install
	$(BIN)/python -m pipeline_lib schema > workflow/schemas/config.schema.json

docs: install
	$(BIN)/python -m pip install --quiet --editable .[docs]
	$(BIN)/mkdocs build --strict

tfds: .venv-tfds/installed

.venv-tfds/installed: envs/tfds.txt
	$(PYTHON) -m venv .venv-tfds
	.venv-tfds/bin/python -m pip install --quiet --requirement envs/tfds.txt
	@touch $@

clean:
	rm -rf results/* .snakemake
	git checkout -- results/README.md
