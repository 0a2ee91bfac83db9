PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup oracles run test test-portable compat site lint bench chaos scale photos tables

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(VENV)/installed ## Make .venv and install the project with its tools

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; name one with make PYTHON=python3.11")'
	@echo "installing into $(VENV): several gigabytes with torch, a few minutes the first time"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --editable '.[dev]'
	@touch $@

oracles: $(VENV)/oracles ## Install what the tests compare influence functions with, else they skip

$(VENV)/oracles: $(VENV)/installed
	@echo "installing dattri and captum into $(VENV)"
	@$(VENV)/bin/pip install --quiet --editable '.[dev,oracles]'
	@touch $@

run: setup ## Train on drawn letters with 10 % flipped labels, and find out who is to blame
	@$(RUN) -m src.run noise=flip_10

test: setup ## Run the whole test suite, two files at a time
	@$(RUN) -m pytest -n 2 --dist loadfile

# What computes, and what compares the same numbers made in two ways.
NUMERIC := $(addprefix tests/,attribution detector duplicates influence loss model retraining retrieval target unrolling) \
	$(patsubst %,tests/labels/test_%.py,evidence loop relabel) \
	$(patsubst %,tests/training/test_%.py,datamodule embedder shared_batch train)

test-portable: setup ## Run the numeric part of the tests as a processor without AVX would
	@ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE \
		$(RUN) -m pytest -n 2 --dist loadfile $(NUMERIC)

compat: setup ## Install the wheel beside other versions, and try it (RUNS="lowest torch-2.11 newest"; 6 GB each)
	@$(RUN) -m scripts.compat $(RUNS)

site: setup ## Build the documentation's site into site/
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet

lint: setup ## Check style, formatting and the direction of imports
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/lint-imports --no-logo

bench: setup ## Measure the core against the direct way, as ratios from one run
	@$(RUN) -m scripts.bench

chaos: setup ## Kill runs at random moments, give the same command again, compare (KILLS=50)
	@OMP_NUM_THREADS=1 $(RUN) -m scripts.chaos --kills $(or $(KILLS),50)

scale: setup ## Measure how a run grows, up to 2,000,000 rows: 6 GB on the disk, an hour on one core
	@$(RUN) -m scripts.bench_scale

DIR ?= ../shared/data
SEED ?= 0
FROZEN := recipe=frozen model=efficientnet_lite0 data_dir=outputs/data report=false seed=$(SEED)
PHOTOS := dataset=cars_128,birds_128 $(FROZEN)

photos: setup ## The paper's tables on photographs of DIR (cars/cars_128.tar, cub2010/cub2010_128.tar), one SEED
	@mkdir -p outputs/data/cars_128 outputs/data/birds_128
	@tar -xf $(DIR)/cars/cars_128.tar -C outputs/data/cars_128
	@tar -xf $(DIR)/cub2010/cub2010_128.tar -C outputs/data/birds_128
	@$(RUN) -m src.run -m experiment=table1_pairs $(PHOTOS)
	@$(RUN) -m src.run -m experiment=table1_groups $(PHOTOS)
	@$(RUN) -m src.run -m experiment=table2 $(PHOTOS)
	@$(RUN) -m src.run -m experiment=detection $(PHOTOS) noise=flip_10,confused
	@$(RUN) -m src.tables outputs

tables: setup ## Collect what is in outputs/ into tables
	@$(RUN) -m src.tables outputs
