# `make help` lists what can be made. Everything runs in a virtual environment of its own (VENV=... chooses another).
VENV ?= .venv
PYTHON ?= python3
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
INSTALLED := $(VENV)/.installed
CODE := stedfm_hf tests docs/tools

.DEFAULT_GOAL := help
.PHONY: help install cards demo demo-encoder test test-all test-minimum test-thorough release-check quality format docs docs-check docs-draft docs-serve bench bench-acquisition bench-backends bench-busy bench-cluster bench-clustering bench-data bench-generation bench-interpretability bench-phenotype bench-retrieval bench-search bench-segmentation bench-serving bench-shards bench-start bench-studies clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' Makefile

# A stamp: redone only when what is to be installed has changed.
$(INSTALLED): pyproject.toml setup.cfg constraints.txt
	test -d "$(BIN)" || $(PYTHON) -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --constraint constraints.txt --editable ".[all,dev]"
	touch "$(INSTALLED)"

install: $(INSTALLED) ## Make the virtual environment with everything that demo, test and quality need

demo: $(INSTALLED) ## Simulate, pretrain, embed and write demo/report.html (a few minutes)
	"$(BIN)/stedfm" demo --output demo

cards: $(INSTALLED) ## Render the cards of the official repositories on the Hub to model_cards/
	"$(BIN)/python" -m stedfm_hf.hub.official_cards model_cards

demo-encoder: $(INSTALLED) ## Simulate images and train the encoder `demo` of the package again (WORK=FOLDER; an hour)
	"$(BIN)/python" -m stedfm_hf.training.demo_encoder "$(or $(WORK),demo-encoder)"

test: $(INSTALLED) ## Run the tests offline, without the slow ones (STEDFM_REAL_DATA=DIR adds those on real images)
	"$(BIN)/python" -m pytest -n 2 --dist worksteal -m "not slow"

test-all: $(INSTALLED) ## Run all tests offline, print the 20 slowest
	"$(BIN)/python" -m pytest -n 2 --dist worksteal --durations=20

test-thorough: export HYPOTHESIS_PROFILE = full
test-thorough: export STEDFM_TEST_FIGURES = 1
test-thorough: test-all ## Run all tests offline, plot every figure, and try more examples of each property

release-check: $(INSTALLED) ## Build the wheel, install it into an empty environment, and run the README there (minutes)
	"$(BIN)/python" -m tests.release_check

test-minimum: $(INSTALLED) ## Run the tests with the lowest versions that pyproject.toml admits (minutes)
	"$(BIN)/python" -m venv build/minimum
	"$(BIN)/python" -m tests.minimum_versions > build/minimum.txt
	build/minimum/bin/python -m pip install --quiet --constraint build/minimum.txt --editable ".[all,dev]"
	build/minimum/bin/python -m pytest -n 2 --dist worksteal -m "not slow"

quality: $(INSTALLED) ## Check style, format and types
	"$(BIN)/ruff" check $(CODE)
	"$(BIN)/ruff" format --check $(CODE)
	"$(BIN)/mypy" $(CODE)

format: $(INSTALLED) ## Fix style and format where that can be done automatically
	"$(BIN)/ruff" check --fix $(CODE)
	"$(BIN)/ruff" format $(CODE)

docs: export NO_MKDOCS_2_WARNING = 1
docs: $(INSTALLED) ## Run the tutorials that changed and build the documentation site in site/, offline
	"$(BIN)/python" -m docs.tools.tutorials
	"$(BIN)/python" -m mkdocs build --strict

docs-draft: export NO_MKDOCS_2_WARNING = 1
docs-draft: export STEDFM_DOCS_DRAFT = 1
docs-draft: $(INSTALLED) ## Build the site without running the tutorials, whose pages then have no results (a minute)
	"$(BIN)/python" -m mkdocs build --strict --site-dir build/site-draft

docs-check: docs ## Build the site and open every page in Chromium, wide and at phone width (needs chromium; SCREENSHOTS=DIR)
	"$(BIN)/python" -m docs.tools.check_site $(if $(SCREENSHOTS),--screenshots "$(SCREENSHOTS)")

docs-serve: export NO_MKDOCS_2_WARNING = 1
docs-serve: $(INSTALLED) ## Show the site on http://127.0.0.1:8000 and update it while you write
	"$(BIN)/python" -m mkdocs serve --livereload

bench: $(INSTALLED) ## Measure speed and memory and write docs/benchmarks/speed.md (tests/benchmarks)
	"$(BIN)/python" -m tests.benchmarks

bench-data: $(INSTALLED) ## Measure reading, building and streaming of data sets and write docs/benchmarks/data.md
	"$(BIN)/python" -m tests.benchmarks.data

bench-acquisition: $(INSTALLED) ## Compare ways to choose regions on a simulated microscope and write docs/benchmarks/acquisition.md
	"$(BIN)/python" -m tests.benchmarks.acquisition

bench-backends: $(INSTALLED) ## Measure PyTorch, onnxruntime and OpenVINO and write docs/benchmarks/backends.md
	"$(BIN)/python" -m tests.benchmarks.backends

bench-busy: $(INSTALLED) ## Measure embedding next to busy processes and write docs/benchmarks/busy-machine.md
	"$(BIN)/python" -m tests.benchmarks.busy

bench-clustering: $(INSTALLED) ## Measure the clustering of simulated groups and noise and write docs/benchmarks/clustering.md (an hour)
	"$(BIN)/python" -m tests.benchmarks.clustering --output docs/benchmarks/clustering.md

bench-retrieval: $(INSTALLED) ## Compare features by retrieval and groups of simulated images and write docs/benchmarks/retrieval.md
	"$(BIN)/python" -m tests.benchmarks.retrieval

bench-search: $(INSTALLED) ## Measure searches of indexes and write docs/benchmarks/search.md and places.md
	"$(BIN)/python" -m tests.benchmarks.search
	"$(BIN)/python" -m tests.benchmarks.places

bench-phenotype: $(INSTALLED) ## Look for planted phenotypes in embeddings and images and write docs/benchmarks/phenotype.md
	"$(BIN)/python" -m tests.benchmarks.phenotype --output docs/benchmarks/phenotype.md

bench-generation: $(INSTALLED) ## Measure the packaged pipeline and write docs/benchmarks/generation.md (two hours)
	"$(BIN)/python" -m tests.benchmarks.generation demo --output docs/benchmarks/generation.md

bench-cluster: $(INSTALLED) ## Measure Dask next to a process pool, and a million items, and write docs/benchmarks/cluster.md
	"$(BIN)/python" -m tests.benchmarks.cluster

bench-interpretability: $(INSTALLED) ## Delete patches and look for a planted grid with maps; write docs/benchmarks/interpretability.md
	"$(BIN)/python" -m tests.benchmarks.interpretability

bench-serving: $(INSTALLED) ## Measure requests to `stedfm serve` next to library calls and write docs/benchmarks/serving.md
	"$(BIN)/python" -m tests.benchmarks.serving latency

bench-shards: $(INSTALLED) ## Measure a data set of 10,000 shards and write docs/benchmarks/shards.md
	"$(BIN)/python" -m tests.benchmarks.shards

bench-start: $(INSTALLED) ## Measure how fast help and errors are answered and write docs/benchmarks/start.md
	"$(BIN)/python" -m tests.benchmarks.start

bench-studies: $(INSTALLED) ## Measure errors and power of analyses of studies and write docs/benchmarks/studies.md
	"$(BIN)/python" -m tests.benchmarks.studies --output docs/benchmarks/studies.md

# Compared with, and no dependency of ours: it has a folder of its own beside the environment.
MONAI := build/monai
$(MONAI): $(INSTALLED)
	"$(BIN)/python" -m pip install --quiet --no-deps --upgrade --target "$(MONAI)" monai==1.6.1
	touch "$(MONAI)"

bench-segmentation: $(MONAI) ## Measure decoders, whole fields and MONAI and write docs/benchmarks/fields.md
	PYTHONPATH="$(MONAI)" "$(BIN)/python" -m tests.benchmarks.segmentation

clean: ## Remove the virtual environment and everything built
	rm -rf "$(VENV)" build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
