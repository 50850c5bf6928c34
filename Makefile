# A thin skin over the command line; the first target that needs it makes .venv, and remakes it when
# setup.cfg or constraints.txt change.

METHOD ?= stpr
METHODS ?= $(METHOD)
PROTOCOL ?= synthetic_3x4
PROTOCOLS ?= $(PROTOCOL)
SEED ?= all
DATA ?=
SET ?=
DEVICE ?= auto
FORCE ?=
JOBS ?=
TABLE ?=
PYTHON ?= python3

BIN := .venv/bin
READY := .venv/.ready
RUN := $(BIN)/vcil-bench
# Tests run in two processes, as many as the smallest machine has cores.
SPREAD := -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: bench grid test test-all test-elsewhere lint report check gpu-check clean help tiny-clip tiny-tsm reproduction scale

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "vcil-bench needs Python 3.11 or newer; give one with PYTHON=python3.12"; exit 2; }
	@echo "setting up .venv (about two minutes and 5 GB with torch's CUDA libraries) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

bench: $(READY)  ## run METHOD on PROTOCOL: SEED=1000|all DATA=root SET="key=value ..." DEVICE=cuda FORCE=1
	@$(RUN) run '$(METHOD)' '$(PROTOCOL)' --seed '$(SEED)' --device '$(DEVICE)' \
	    $(if $(DATA),--data '$(DATA)') $(if $(SET),--set $(SET)) $(if $(FORCE),--force)

# A table names its methods and protocols; of these only what was asked for, one by one, takes their place.
asked = $(if $(filter command environment,$(foreach name,$(1),$(firstword $(origin $(name))))),$(2),all)

grid: $(READY)  ## run METHODS x PROTOCOLS (a,b,c), or a paper's TABLE=id, on all GPUs: SEED=1000,1993|all DATA="ucf101=root ..." SET=... JOBS=2
	@$(RUN) grid $(if $(TABLE),'$(call asked,METHODS METHOD,$(METHODS))' '$(call asked,PROTOCOLS PROTOCOL,$(PROTOCOLS))' \
	    --table '$(TABLE)','$(METHODS)' '$(PROTOCOLS)') --seeds '$(SEED)' \
	    $(if $(DATA),--data $(DATA)) $(if $(SET),--set $(SET)) $(if $(JOBS),--jobs '$(JOBS)')

test: $(READY)  ## run the tests (a few minutes on two cores)
	@$(BIN)/python -m pytest -q $(SPREAD)

test-all: $(READY)  ## run all tests, the slow ones too
	@$(BIN)/python -m pytest -q $(SPREAD) -m "slow or not slow"

test-elsewhere: $(READY)  ## run the tests as other machines do: kernels, threads, random order (a quarter of an hour)
	@ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest -q $(SPREAD) -p randomly --randomly-seed=1
	@ATEN_CPU_CAPABILITY=avx2 VCIL_BENCH_TEST_THREADS=2 $(BIN)/python -m pytest -q $(SPREAD) -p randomly --randomly-seed=2
	@ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/python -m pytest -q $(SPREAD)

lint: $(READY)  ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

report: $(READY)  ## write the page, the tables of papers and the figures from results/ into reports/
	@$(RUN) report

check: lint test  ## style, types and tests

gpu-check: $(READY)  ## check the whole path on this machine's GPUs (about ten minutes)
	@$(RUN) doctor --gpu

tiny-clip: $(READY)  ## pretrain the small CLIP of the embedded data anew (minutes)
	@$(BIN)/python tools/pretrain_tiny_clip.py

tiny-tsm: $(READY)  ## pretrain the small ResNet of the embedded data anew (minutes)
	@$(BIN)/python tools/pretrain_tiny_tsm.py

scale: $(READY)  ## write the tables of docs/scale.md anew, counting operations where recipes have changed
	@$(BIN)/python tools/scale.py

reproduction: $(READY)  ## write docs/reproduction.md and docs/systems.md anew from the methods and what they were checked against
	@$(BIN)/python tools/reproduction.py

clean:  ## remove .venv and everything generated except records
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find reports -mindepth 1 ! -name README.md -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "make %-13s %s\n", $$1, $$2}'
