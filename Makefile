.DEFAULT_GOAL := help
.PHONY: help quickstart quickstart-plain bench test test-all mutations check types written format install
.DELETE_ON_ERROR:

PYTHON ?= python3
export PYTHON

PAIRS ?= everyday_pairs
ALPACA_EVAL ?= ../shared/evaluation/data/alpacaeval
SMOLLM2 = --model builtin:smollm2-135m-instruct --data $(PAIRS)

INSTALLED := .venv/.installed
INSTALLED_DEV := .venv/.installed-dev
INSTALL_INPUTS := pyproject.toml constraints.txt scripts/install.sh
HAS_GPU = $(shell nvidia-smi >/dev/null 2>&1 && echo yes)

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: $(INSTALLED)  ## three rounds of iterative length-regularized DPO on the offline model, then a report
	.venv/bin/prefloop run quickstart --run runs/quickstart

quickstart-plain: $(INSTALLED)  ## the same with plain iterative DPO, sharing round 0 with quickstart
	.venv/bin/prefloop run quickstart_plain --run runs/quickstart_plain --reuse runs/quickstart

test: $(INSTALLED_DEV)  ## the unmarked tests and those marked long, recipes, crash, browser, engine
	.venv/bin/pytest -n auto --dist worksteal -m "not (slow or gpu or network or peer or replica)"

test-all: $(INSTALLED_DEV)  ## every test that this machine can run
	.venv/bin/pytest -m "$(if $(HAS_GPU),,not gpu)"

bench: $(INSTALLED_DEV)  ## sampling beside transformers, training beside TRL 1.16 and win rates beside alpaca_eval 0.6.6, in environments that this makes (PAIRS=hh_harmless_test.jsonl.gz for real ones)
	benchmarks/trl_environment.sh
	.venv/bin/python benchmarks/same_steps.py build/trl/bin/python
	.venv/bin/python benchmarks/same_steps.py build/trl/bin/python $(SMOLLM2) --pairs 16 --epochs 1 --rate 1e-5
	.venv/bin/python benchmarks/float32.py --data $(PAIRS) --trl-python build/trl/bin/python
	.venv/bin/python benchmarks/curves.py tokens --data $(PAIRS) --threads 2
	.venv/bin/python benchmarks/curves.py products --data $(PAIRS) --threads 2
	.venv/bin/python benchmarks/curves.py vocabulary --frozen-head
	.venv/bin/python benchmarks/curves.py vocabulary
	.venv/bin/python benchmarks/curves.py answers
	.venv/bin/python benchmarks/train_speed.py $(PAIRS) --trl-python build/trl/bin/python
	.venv/bin/python benchmarks/train_speed.py $(PAIRS) --trl-python build/trl/bin/python --lora
	.venv/bin/python benchmarks/server_pool.py
	.venv/bin/python benchmarks/sampling_speed.py
	benchmarks/alpaca_eval_environment.sh
	.venv/bin/python benchmarks/evaluation_speed.py $(ALPACA_EVAL) --peer build/alpaca_eval/bin/python

mutations: $(INSTALLED_DEV)  ## changes the objectives one operator, sign or constant at a time: what sees it?
	nice .venv/bin/python scripts/mutate_objectives.py

check: types written  ## format, lint, types, layers, generated pages

types: $(INSTALLED_DEV)
	.venv/bin/basedpyright

written: $(INSTALLED_DEV)
	.venv/bin/ruff format --check
	.venv/bin/ruff check
	.venv/bin/lint-imports
	.venv/bin/python scripts/module_tree.py --check
	.venv/bin/python scripts/recipe_schema.py --check
	.venv/bin/python scripts/objectives_page.py --check
	.venv/bin/python scripts/data_page.py --check
	.venv/bin/python scripts/systems_page.py --check
	.venv/bin/python scripts/worlds_page.py --check

format: $(INSTALLED_DEV)  ## put the code into its one format
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

install: $(INSTALLED_DEV)

$(INSTALLED): $(INSTALL_INPUTS)
	@scripts/install.sh
	@touch $@

$(INSTALLED_DEV): $(INSTALL_INPUTS)
	@scripts/install.sh dev
	@touch $(INSTALLED) $@
