# `make help` lists every target with its cost. Variables: SCALE (smoke, cpu, gpu, paper), SEEDS (0,1,...), JOBS,
# PIECE_MINUTES (a call stops after so many, the next goes on), LAUNCHER (slurm: a job a run), WANDB_PROJECT.
SCALE ?= cpu
SEEDS ?=
JOBS ?= 2
PIECE_MINUTES ?=
LAUNCHER ?=
LOCK ?=
PYTHON ?= python3
PY := .venv/bin/python
# Every experiment but all: conf/experiment/figure_4.yaml is make reproduce-figure-4.
EXPERIMENTS := $(sort $(filter-out all,$(patsubst conf/experiment/%.yaml,%,$(wildcard conf/experiment/*.yaml))))
SINGLE := $(subst _,-,$(EXPERIMENTS:%=reproduce-%))
WANDB_PROJECT ?=
REPLAY = $(PY) -m pma.replay scale=$(SCALE) $(if $(WANDB_PROJECT),tracking.project=$(WANDB_PROJECT))
REPRODUCE = $(PY) -m pma.reproduce scale=$(SCALE) jobs=$(JOBS) $(if $(SEEDS),'seeds=[$(SEEDS)]') $(if $(PIECE_MINUTES),minutes=$(PIECE_MINUTES)) $(if $(LAUNCHER),launcher=$(LAUNCHER))
DRAW = $(PY) analysis/draw.py --scale $(SCALE) $(if $(PIECE_MINUTES),--available)

.DEFAULT_GOAL := help
.NOTPARALLEL: # the figures share runs; pma.reproduce itself trains JOBS at a time
.PHONY: help setup browser test reproduce figures claims verify report wandb-replay publish plan bench bench-gpu lock $(SINGLE)

help: ## this list
	@echo "make variables: SCALE=$(SCALE) (smoke, cpu, gpu, paper), SEEDS=0,1,..., JOBS=$(JOBS), PIECE_MINUTES=8; costs are for 2 CPU cores"
	@grep -hE '^[a-z%-]+[a-z0-9%-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([^:]+):.*## /\1\t/' | expand -t 24
	@echo "reproduce-NAME          one experiment of conf/experiment: train what is missing, score, draw (SCALE=cpu: at most 10"
	@echo "                        minutes); NAME: $(SINGLE:reproduce-%=%)"

setup: .venv/.installed ## .venv with requirements.txt in it (about 3 minutes, 2 GB)

# One interpreter for everything; requirements.txt carries exact pins of all packages but torch's own CUDA libraries.
.venv/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 12) and f"Python {v[0]}.{v[1]} found; give 3.11 or 3.12: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# Chromium for the test of the report; without it that test is skipped.
browser: setup
	@command -v chromium chromium-browser google-chrome >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get install -y -qq chromium >/dev/null 2>&1; } || \
	  timeout 120 .venv/bin/playwright install chromium >/dev/null 2>&1 || echo "no Chromium could be installed"

test: browser ## lint, import contract, types and all tests, every experiment at SCALE=smoke end to end among them (about 6 minutes on 2 cores after setup)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/mypy
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

reproduce: setup ## the main job: every figure, the table, the claims (SCALE=cpu: about 35 minutes)
	@$(REPRODUCE) experiment=all
	@$(DRAW)
	@$(PY) analysis/claims.py --scale $(SCALE) --compare
	-@$(REPLAY)

# A file's own name may hold hyphens.
NAME = $(firstword $(foreach name,$(EXPERIMENTS),$(if $(filter $*,$(subst _,-,$(name))),$(name))))
$(SINGLE): reproduce-%: setup
	@$(REPRODUCE) experiment=$(NAME)
	@$(DRAW) $(NAME)
	-@$(REPLAY) experiment=$(NAME)

figures: setup ## draw everything from the published records (under a minute, nothing is trained)
	@$(PY) analysis/draw.py --scale $(SCALE) --published

claims: setup ## judge the claims from your own records
	@$(PY) analysis/claims.py --scale $(SCALE) --compare

verify: setup ## recompute every number of the README and the claims from the published records; fails on drift
	@$(PY) analysis/verify.py

report: setup ## report/index.html from the published records (under a minute); SERVE=1 then serves it to this machine alone and prints the address; with WANDB_PROJECT=NAME also the report in W&B
	@$(PY) analysis/report.py
	$(if $(WANDB_PROJECT),@$(PY) analysis/wandb_report.py --project $(WANDB_PROJECT))
	$(if $(SERVE),@$(PY) -u -m http.server 0 --bind 127.0.0.1 --directory report)

plan: setup ## what the runs of SCALE would take: GPUs, memory, hours, money, disk (SCALE=paper writes docs/scale.md; under a minute)
	@$(PY) -m pma.plan scale=$(SCALE) $(if $(filter paper,$(SCALE)),docs=docs)

wandb-replay: setup ## send to W&B what it lacks of your own runs and records of SCALE; PUBLISHED=true sends the published ones
	@$(REPLAY) $(if $(PUBLISHED),published=true)

publish: setup ## copy your own records of SCALE to runs/SCALE/published, and their numbers into the README
	@$(PY) analysis/publish.py --scale $(SCALE)
	@$(PY) analysis/claims.py --readme

bench: setup ## our training against transformers' Trainer, our scoring against lm-eval's command, our merging against mergekit (about 20 minutes)
	$(PY) benchmarks/train.py
	$(PY) benchmarks/evaluate.py
	$(PY) benchmarks/merge.py
	$(PY) benchmarks/startup.py
	$(PY) benchmarks/tracking.py

bench-gpu: setup ## training on a GPU against transformers' Trainer and bare matrix products (about 20 minutes on an H100)
	$(PY) benchmarks/gpu.py

lock: ## compile requirements.txt anew from pyproject.toml; its pins stay unless LOCK=--upgrade or LOCK='-P NAME==VERSION' (about 1 minute)
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet pip-tools
	.venv-lock/bin/pip-compile --quiet $(LOCK) --extra dev --strip-extras $(addprefix --unsafe-package ,pma pip setuptools) --no-emit-find-links --no-emit-index-url --no-emit-trusted-host --no-header --output-file requirements.txt pyproject.toml
	sed -i.bak 's/^torch==\([0-9.]*\)+[a-z0-9]*/torch==\1/' requirements.txt # a build tag would bind it to one machine
	rm -rf requirements.txt.bak .venv-lock
