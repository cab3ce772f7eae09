# make reproduce   install into .venv, run the workflow on config.yaml, write results/report.html
# make test        install into .venv, run the whole test suite
# make benchmark   print what is fast and how fast, each against its bound in the same run
# make api         write docs/api.md from the docstrings
# make lint        formatting and static checks
# make tfds        install into .venv-tfds what prepares sets of TensorFlow Datasets

PYTHON ?= python3
BIN := .venv/bin

.PHONY: install reproduce test benchmark lint schema api tfds clean

install: .venv/installed

.venv/installed: envs/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement envs/requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

reproduce: install
	$(BIN)/snakemake --cores all
	$(BIN)/snakemake --report results/report.html

test: install
	$(BIN)/python -m pytest -n logical --no-loadscope-reorder

benchmark: install
	$(BIN)/python -m tests.benchmarks

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

schema: install
	$(BIN)/python -m pipeline_lib schema > workflow/schemas/config.schema.json

api: install
	$(BIN)/python -m pipeline_lib api_page > docs/api.md

tfds: .venv-tfds/installed

.venv-tfds/installed: envs/tfds.txt
	$(PYTHON) -m venv .venv-tfds
	.venv-tfds/bin/python -m pip install --quiet --requirement envs/tfds.txt
	@touch $@

clean:
	rm -rf results/* .snakemake
	git checkout -- results/README.md
