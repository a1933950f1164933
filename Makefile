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
# Every experiment but lists of others: conf/experiment/figure_4.yaml is make reproduce-figure-4.
BEYOND := $(sort $(patsubst conf/experiment/%.yaml,%,$(wildcard conf/experiment/beyond/*.yaml)))
EXPERIMENTS := $(sort $(filter-out all beyond,$(patsubst conf/experiment/%.yaml,%,$(wildcard conf/experiment/*.yaml)))) $(BEYOND)
SINGLE := $(subst _,-,$(patsubst %,reproduce-%,$(notdir $(EXPERIMENTS))))
WANDB_PROJECT ?=
REPLAY = $(PY) -m pma.replay scale=$(SCALE) $(if $(WANDB_PROJECT),tracking.project=$(WANDB_PROJECT))
REPRODUCE = $(PY) -m pma.reproduce scale=$(SCALE) jobs=$(JOBS) $(if $(SEEDS),'seeds=[$(SEEDS)]') $(if $(PIECE_MINUTES),minutes=$(PIECE_MINUTES)) $(if $(LAUNCHER),launcher=$(LAUNCHER))
DRAW = $(PY) analysis/draw.py --scale $(SCALE) $(if $(PIECE_MINUTES),--available)

.DEFAULT_GOAL := help
.NOTPARALLEL: # the figures share runs; pma.reproduce itself trains JOBS at a time
.PHONY: help setup browser test test-interop reproduce reproduce-beyond reproduce-NAME figures claims verify report wandb-replay publish plan bench bench-gpu lock stress $(SINGLE)

# A heading, and a line for each target from the ## after its name.
group = echo; echo "$(1)"; for target in $(2); do \
  awk -F ':.*\#\# ' -v target=$$target '$$1 == target {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST); done

help:
	@echo "Averaging checkpoints in pre-training, measured again on small models. Times are for 2 CPU cores."
	@$(call group,See the result (nothing is trained),figures report verify)
	@$(call group,Do it again,reproduce reproduce-NAME reproduce-beyond claims plan wandb-replay)
	@$(call group,Work on it,setup test test-interop stress publish bench bench-gpu lock)
	@echo
	@echo "NAME is one of $(SINGLE:reproduce-%=%)" | fold -s -w 110
	@echo "SCALE=$(SCALE): or smoke (a minute, proves wiring alone), gpu, paper (bigger machines). SEEDS=0,1,... trains each seed."
	@echo "JOBS=$(JOBS) runs train at once. PIECE_MINUTES=8 ends a call after so long; the same call again goes on."
	@echo "next: make figures"

setup: .venv/.installed ## install everything into .venv (about 3 minutes, 2 GB); the others do it where it is missing

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

test: browser ## style, types and all tests, every experiment at SCALE=smoke among them (about 10 minutes)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/mypy
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

test-interop: setup ## checkpoints that the writers' own packages make, merged and trained on (about 5 minutes)
	OMP_NUM_THREADS=1 $(PY) tests/interop/check.py

stress: setup ## kills, damaged inputs, full disks and rival writers by the thousand (20 to 30 minutes); goes on where it stopped
	$(PY) tests/stress/stress.py --jobs $(JOBS)

reproduce: setup ## train, merge and score everything for one seed, draw it, lay it beside the published seeds (about 40 minutes)
	@$(REPRODUCE) experiment=all
	@$(DRAW)
	@$(PY) analysis/claims.py --scale $(SCALE) --compare
	-@$(REPLAY)
	@echo "your pictures: analysis/out/$(SCALE)"
	@$(call next,make report (the published results on one page$(COMMA) to lay beside yours))

# These targets run several commands, each of which would name the one after it.
reproduce reproduce-beyond $(SINGLE): export PMA_NEXT = no
COMMA := ,
next = echo "next: $(if $(PIECE_MINUTES),the same command$(COMMA) until nothing is left to do; then )$(1)"

reproduce-NAME: ## train and draw one experiment for one seed (2 to 14 minutes), for example make reproduce-figure-3
	@echo "error: give an experiment for NAME: $(SINGLE:reproduce-%=%)"; false

reproduce-beyond: setup ## the questions that the paper left open, docs/beyond.md, for one seed (about 40 minutes, by the plan)
	@$(REPRODUCE) experiment=beyond
	@$(DRAW) $(notdir $(BEYOND))
	@$(PY) analysis/claims.py --scale $(SCALE) --compare
	-@$(REPLAY)
	@$(call next,see your pictures in analysis/out/$(SCALE))

# A file's own name may hold hyphens.
NAME = $(firstword $(foreach name,$(EXPERIMENTS),$(if $(filter $*,$(subst _,-,$(notdir $(name)))),$(name))))
$(SINGLE): reproduce-%: setup
	@$(REPRODUCE) experiment=$(NAME)
	@$(DRAW) $(notdir $(NAME))
	-@$(REPLAY) experiment=$(notdir $(NAME))
	@$(call next,$(if $(filter beyond/%,$(NAME)),see your pictures in analysis/out/$(SCALE),make claims SCALE=$(SCALE) (what your records say of the paper's claims)))

figures: setup ## draw all figures from the published records (under a minute)
	@$(PY) analysis/draw.py --scale $(SCALE) --published

claims: setup ## your own records beside the published seeds, part by part; verdicts from three of the seeds 2 to 9 on
	@$(PY) analysis/claims.py --scale $(SCALE) --compare

verify: setup ## recompute every number of README, docs, claims.csv and seeds.csv from the published records; fails on drift
	@$(PY) analysis/verify.py

report: setup ## report/index.html from the published records (under a minute); SERVE=1 serves it, WANDB_PROJECT=NAME: in W&B too
	@$(PY) analysis/report.py
	$(if $(WANDB_PROJECT),@$(PY) analysis/wandb_report.py --project $(WANDB_PROJECT))
	$(if $(SERVE),@$(PY) -u -m http.server 0 --bind 127.0.0.1 --directory report)

plan: setup ## what the runs of SCALE would take: GPUs, memory, hours, money, disk (SCALE=paper: docs/plan.md)
	@$(PY) -m pma.plan scale=$(SCALE) $(if $(filter paper,$(SCALE)),docs=docs)

wandb-replay: setup ## send to W&B what it lacks of your own runs and records of SCALE; PUBLISHED=true sends the published ones
	$(if $(PUBLISHED),@$(DRAW) --published >/dev/null)
	@$(REPLAY) $(if $(PUBLISHED),published=true)

publish: setup ## make your own records of SCALE the published ones, with their numbers in README and docs and their pictures
	@$(PY) analysis/publish.py --scale $(SCALE)
	@$(PY) analysis/claims.py --readme
	@$(PY) analysis/pictures.py
	@$(PY) analysis/wandb_report.py --sample

bench: setup ## our training, scoring and merging against Trainer, lm-eval and mergekit (about 20 minutes)
	$(PY) benchmarks/train.py
	$(PY) benchmarks/evaluate.py
	$(PY) benchmarks/merge.py
	$(PY) benchmarks/choose.py
	$(PY) benchmarks/startup.py
	$(PY) benchmarks/tracking.py

bench-gpu: setup ## training on a GPU against Trainer and bare matrix products (about 20 minutes on an H100)
	$(PY) benchmarks/gpu.py

lock: ## compile requirements.txt anew; pins stay unless LOCK=--upgrade or LOCK='-P NAME==VERSION'
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet pip-tools
	.venv-lock/bin/pip-compile --quiet $(LOCK) --extra dev --strip-extras $(addprefix --unsafe-package ,pma pip setuptools) --no-emit-find-links --no-emit-index-url --no-emit-trusted-host --no-header --output-file requirements.txt pyproject.toml
	sed -i.bak 's/^torch==\([0-9.]*\)+[a-z0-9]*/torch==\1/' requirements.txt # a build tag would bind it to one machine
	rm -rf requirements.txt.bak .venv-lock
