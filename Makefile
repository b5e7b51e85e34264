# The commands of a checkout. Each makes the virtual environment and installs what it needs, the first time
# and again when setup.py has changed.
#
#   make demo       train, evaluate and sample on drawn sprites, in runs/demo; at most 5 minutes on 2 cores
#   make test       the tests, without the slow ones        make slow-test  the slow ones
#   make lint       ruff, bandit and mypy                   make wheel      dist/asr_tf-*.whl
#   make clean      what tools leave behind                 make clean-demo the demo's run
#   make dist-clean the virtual environment too
#
# Settings, as in `make demo DEMO_MINUTES=10`: DEMO_MINUTES (training time), DEMO_SEED, DEMO_DIR,
# PYTHON (interpreter for a new environment, 3.10 to 3.13), VENV (its folder), PYTEST_ARGS, TEST_PROCESSES.

VENV ?= .venv
DEMO_MINUTES ?= 3
DEMO_SEED ?= 0
DEMO_DIR ?= runs/demo
PYTEST_ARGS ?=
TEST_PROCESSES ?= 2

# The first of these that runs and is of a version that TensorFlow has wheels for.
FITS := import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))
PYTHON ?= $(firstword $(foreach name,python3.11 python3 python3.12 python3.13 python3.10 python,\
	$(shell $(name) -c '$(FITS)' 2>/dev/null && echo $(name))))

BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test slow-test lint wheel clean clean-demo dist-clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed -n '1,12p'

# Some systems ship venv without ensurepip: the pip of the interpreter then fills the new environment.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.10 to 3.13 found; say PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install --quiet pip setuptools; }

# One stamp for each set of extras: none, [test] and [lint]. Editable, so that a changed file needs no step.
$(VENV)/.installed: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-%: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@ $(VENV)/.installed

# A demo that was interrupted goes on; one that is finished is evaluated and drawn again.
demo: $(VENV)/.installed
	$(BIN)/asr_train --workdir=$(DEMO_DIR) --gin_files=quickstart.gin --seed=$(DEMO_SEED) \
	  --max_minutes=$(DEMO_MINUTES) || { echo "To start the demo anew: make clean-demo demo" >&2; exit 1; }
	$(BIN)/asr_evaluate --workdir=$(DEMO_DIR)
	$(BIN)/asr_sample --workdir=$(DEMO_DIR) --num_samples=64 --seed=$(DEMO_SEED)
	@echo "Everything is in $(DEMO_DIR): report.json, figures/, logs/ for TensorBoard. 'make clean-demo' removes it."

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

slow-test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

# mypy finds modules by their folders and runs nothing: it reads links that are laid out as the wheel is.
lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive setup.py asr_tf export benchmarks
	rm -rf build/layout
	mkdir -p build/layout/asr_tf
	ln -s $(addprefix ../../../,$(filter-out %/export,$(wildcard asr_tf/*)) export) build/layout/asr_tf
	ln -s ../../benchmarks build/layout
	$(BIN)/mypy

wheel: | $(BIN)/python
	rm -rf build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find asr_tf export tests -name __pycache__ -type d -exec rm -rf {} +

clean-demo:
	rm -rf $(DEMO_DIR)

dist-clean: clean
	rm -rf $(VENV)
