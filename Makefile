# make demo   sets everything up and runs the whole flow on generated pictures (CPU, no network once installed)
# make demo-full   the same with more pictures and longer training: 23 minutes on two cores
# make test   sets everything up and passes the tests
# make lint   style and types, as CI runs them

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo demo-full test slow lint format clean

demo: $(INSTALLED)
	$(BIN)/python -m pipelines.demo --out demo-out

demo-full: $(INSTALLED)
	$(BIN)/python -m pipelines.demo --full --out demo-full-out

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

slow: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The constraints pin the set that is known to work, with torch's CPU build where the index has one for this Python.
$(INSTALLED): pyproject.toml constraints/cpu-ci.txt
	$(PYTHON) -c 'import sys; sys.exit("latentmill needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints/cpu-ci.txt -e '.[dev]'
	touch $(INSTALLED)

clean:
	rm -rf demo-out demo-full-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
