# Each command sets up what it needs by itself, in .venv, once and again when settings.ini or constraints.txt change.
#   make demo [PHOTO=mine.jpg]   cut a few synthetic cars, or the car of a photo, out of the background
#   make test                    every notebook and everything in tests/, once
#   make lint                    ruff on the notebooks, the package and the tests, pyright on the package; part of make test
#   make soak                    the long forms: a submission killed at every line and 150 times at random, 1,000 photos, one of 12,000x8,000
#   make reliability             wrong inputs and kills of each kind, more than in make test, and how many of them failed
#   make processors              every notebook as four kinds of processors compute it, with one and two threads (hours)
#   make versions                a quick half of the tests beside the newest versions, then at the lower bounds of settings.ini
#   make lab                     JupyterLab, opened on the notebooks
#   make docs [PORT=8000]        the site in _docs/ (needs Quarto), and a server that shows it until Ctrl+C
#   make docs-check              the pages without Quarto, every link and picture among them; part of make test
#   make runtime                 the ONNX Runtime that the page runs on, as npm has it (needs npm)
#   make readme                  README.md and its picture, from nbs/index.ipynb
VENV ?= .venv
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
  $(shell $(p) -c 'import sys; print("$(p)" * (sys.version_info >= (3, 11)))' 2>/dev/null)))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SETUP := settings.ini setup.py constraints.txt
PORT ?= 8000

# The notebooks run in their own folder, so a path relative to this one would be lost.
ifneq ($(CARVANA_PATH),)
  override CARVANA_PATH := $(or $(shell cd "$(CARVANA_PATH)" 2>/dev/null && pwd),\
    $(error CARVANA_PATH=$(CARVANA_PATH) is not a folder; name one in Kaggle's layout, or unset it))
  export CARVANA_PATH
endif

NEWEST_PYTHON ?= python3.13
LOWEST_PYTHON ?= python3.11
QUICK := $(addprefix tests/test_,masks.py prediction.py pytorch_unet.py hub.py labels.py)

.PHONY: demo test versions newest lowest lint soak reliability processors lab docs docs-check quarto runtime readme
.DEFAULT_GOAL := demo

demo: $(VENV)/run-time
	@$(BIN)/carvana-demo $(if $(PHOTO),"$(PHOTO)")

test: lint
	@MPLBACKEND=agg $(BIN)/python -m pytest tests

lint: $(VENV)/development
	@$(BIN)/ruff check
	@$(BIN)/pyright --pythonpath $(BIN)/python

versions: newest lowest

# Environments of their own, 6 GB each. nbdev 2 cannot be installed beside fastcore 2, so the notebooks are not run here.
newest: PYTHON := $(NEWEST_PYTHON)
newest: RESOLUTION := highest
lowest: PYTHON := $(LOWEST_PYTHON)
lowest: RESOLUTION := lowest-direct
newest lowest:
	@$(PYTHON) -m venv .venv-$@
	@.venv-$@/bin/python -m pip --disable-pip-version-check install --quiet uv
	@.venv-$@/bin/uv pip install --quiet --system-certs --python .venv-$@/bin/python --upgrade --resolution $(RESOLUTION) \
	  -e '.[train,explore,tensorboard,hub,labels]' 'pytest>=8' 'hypothesis>=6.100'
	@.venv-$@/bin/python -c 'import platform, fastai, fastcore, numpy, torch; \
	  print("Python", platform.python_version(), *(f"{m.__name__} {m.__version__}" for m in (torch, fastai, fastcore, numpy)))'
	@MPLBACKEND=agg .venv-$@/bin/python -m pytest -q $(QUICK)

soak: $(VENV)/development
	@SOAK=1 MPLBACKEND=agg $(BIN)/python -m pytest tests/test_submission.py tests/test_prediction.py tests/test_fleet.py

reliability: $(VENV)/development
	@RELIABILITY=5 MPLBACKEND=agg $(BIN)/python -m pytest tests/test_masks.py tests/test_files.py tests/test_faults.py tests/test_checkpoints.py \
	  tests/test_settings.py tests/test_kills.py tests/test_submission.py tests/test_training.py --reliability benchmarks/results/reliability.json

processors: $(VENV)/development
	@$(BIN)/python benchmarks/instruction_sets.py

lab: $(VENV)/development
	@echo "Saving a notebook after Run All changes outputs that git tracks: git status nbs lists them, git restore nbs discards them, with all other changes there."
	@$(BIN)/jupyter lab nbs $(if $(filter 0,$(shell id -u)),--allow-root)

# README.md is not Quarto's to write: nbdev does not touch one that is newer than its notebook.
# The site's search needs a server: browsers do not let a page opened from the disk read its index.
docs: quarto $(VENV)/development
	@touch README.md
	@$(BIN)/python nbs/_pages.py
	@PATH="$(abspath $(BIN)):$$PATH" PYTHONPATH=nbs $(BIN)/nbdev_docs
	@$(BIN)/python -u -m http.server --bind 127.0.0.1 --directory _docs $(PORT)

quarto:
	@command -v quarto >/dev/null || { \
	  echo "make docs needs Quarto: get it from https://quarto.org/docs/get-started (make docs-check does without)" >&2; exit 1; }

docs-check: $(VENV)/development
	@MPLBACKEND=agg $(BIN)/python -m pytest tests/test_site.py

runtime: $(VENV)/development
	@$(BIN)/python tests/runtime.py

readme: $(VENV)/development
	@$(BIN)/python tests/readme.py

$(VENV)/run-time: $(SETUP)
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "carvana_unet needs Python 3.11 or newer: install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up $(VENV): 88 MB to download on Linux, 0.4 GB on disk."
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

# pydensecrf2 comes as C++ source; only the CRF needs it.
$(VENV)/development: $(VENV)/run-time
	@echo "Adding PyTorch and the development packages: 3.6 GB to download on Linux (torch and its CUDA libraries), 7.6 GB on disk."
	@$(PIP) install --quiet -c constraints.txt -e '.[train,explore,tensorboard,heic,export,hub,labels,ray,test]'
	@$(PIP) install --quiet -c constraints.txt -e '.[dev]' >$(VENV)/crf.log 2>&1 || \
	  echo "pydensecrf2 did not compile (it needs a C++ compiler; see $(VENV)/crf.log): going on without the CRF."
	@touch $@
