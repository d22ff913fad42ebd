# Everything runs in a virtual environment in the checkout, made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENVIRONMENT := $(VENV)/.complete

.DEFAULT_GOAL := help
.PHONY: help reference demo test test-thorough test-slow test-mutants lint format types imports bench-theta bench-x bench-large bench-hessian bench-training bench-attacks bench-statistics bench-report bench-study bench-study-scale clean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST)

$(ENVIRONMENT): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -e '.[attacks,dev]'
	touch $@

demo: $(ENVIRONMENT)  ## Answer the question on the stored runs: five figures, a report and a verdict
	$(BIN)/landscape report data/runs --output figures/demo/report.html
	$(BIN)/landscape correlate data/runs --output figures/demo

test: lint types imports  ## Linter, formatter, type checker, import contract and all quick tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope

test-thorough: $(ENVIRONMENT)  ## The tests that take ten seconds or more (twenty minutes)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope -m 'thorough and not slow'

test-slow: $(ENVIRONMENT)  ## The tests that take minutes
	$(BIN)/python -m pytest -m slow

test-mutants: $(ENVIRONMENT)  ## Read 30,000 damaged files of every kind, and count what comes of them (ten minutes)
	$(BIN)/python -m pytest -m slow tests/test_mutants.py

lint: $(ENVIRONMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(ENVIRONMENT)
	$(BIN)/mypy

imports: $(ENVIRONMENT)
	$(BIN)/lint-imports

reference: $(ENVIRONMENT)  ## Write docs/reference.md from the docstrings and the examples
	$(BIN)/python docs/reference.py

format: $(ENVIRONMENT)  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-theta: $(ENVIRONMENT)  ## Distances in parameter space against a long search and simpler methods (two hours)
	$(BIN)/python benchmarks/level_set_theta.py --output benchmarks/cache/theta.json

bench-x: $(ENVIRONMENT)  ## Distances in input space against minimum-norm attacks, l2 and l-infinity
	$(BIN)/python benchmarks/level_set_x.py --norm 2
	$(BIN)/python benchmarks/level_set_x.py --norm inf

bench-large: $(ENVIRONMENT)  ## Memory and time of a level-set distance with 1 M and 10 M parameters
	$(BIN)/python benchmarks/large_models.py --parameters 1e6 1e7

bench-hessian: $(ENVIRONMENT)  ## Five Hessian eigenpairs against other tools (about an hour or more)
	$(BIN)/python benchmarks/hessian.py --workloads cnn mlp
	$(BIN)/python benchmarks/hessian.py --workloads resnet20 --rounds 2 --trajectory adam sgd --layouts

bench-training: $(ENVIRONMENT)  ## Seconds of an epoch against a plain PyTorch loop (ten minutes)
	$(BIN)/python benchmarks/training.py --optimizer sgd adam --rounds 2

bench-attacks: $(ENVIRONMENT)  ## The attack ladder against torchattacks' attacks one by one
	$(BIN)/python benchmarks/attacks.py --norm inf --eps 0.3
	$(BIN)/python benchmarks/attacks.py --norm inf --eps 0.1
	$(BIN)/python benchmarks/attacks.py --norm 2

bench-statistics: $(ENVIRONMENT)  ## Error rates of the statistics on simulated grids, and their time by number of runs
	$(BIN)/python benchmarks/calibration.py --part nulls --replications 2000
	$(BIN)/python benchmarks/calibration.py --part confounded power coverage --replications 500
	$(BIN)/python benchmarks/correlations.py --rows 60 1000 10000

bench-report: $(ENVIRONMENT)  ## Size and opening time of a report on 10,000 runs
	$(BIN)/python benchmarks/report.py --rows 60
	$(BIN)/python benchmarks/report.py --rows 10000

bench-study: $(ENVIRONMENT)  ## Cost of a row against other tools, and the speed-up of two workers (half an hour)
	$(BIN)/python benchmarks/study.py
	$(BIN)/python benchmarks/study.py --rounds 0 --scaling 40

bench-study-scale: $(ENVIRONMENT)  ## Memory and time of a study of 10,000 snapshots on two workers (more than an hour)
	$(BIN)/python benchmarks/study_scale.py --snapshots 10000

clean:  ## Remove the environment and all caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
