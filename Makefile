# Everything a developer or CI runs. `make test` and `make demo` work as the first command in a fresh clone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 2
INSTALLED := $(VENV)/.installed
TRAINING := $(VENV)/.installed-for-training
# Without compiling ahead what may never be imported.
PIP_INSTALL := -m pip install --quiet --no-compile --constraint constraints.txt --editable

# What `make test` leaves out: marks that pyproject.toml declares.
QUICK := not long and not browser
PYTEST = $(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES)

.PHONY: install demo test test-all check format lint types docs recordings clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) ".[dev]"
	touch $(INSTALLED)

$(TRAINING): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) ".[plot,train]"
	touch $(TRAINING)

# What developers need as well takes much longer to install.
demo: $(or $(wildcard $(INSTALLED)),$(TRAINING))
	$(BIN)/butter-etl demo

# The quick tests, of every module, in minutes: for each change. Without coverage, which makes them a third slower.
# PYTEST_OPTIONS adds to it: make test PYTEST_OPTIONS="tests/test_store.py -x". `.venv/bin/pytest` by itself runs
# whatever it is pointed at, the long ones too: -m "not long and not browser" leaves them out there.
test: install
	$(PYTEST) -m "$(QUICK)" $(PYTEST_OPTIONS)

# All tests: campaigns on a real Slurm, buckets of a real Swift, the page in a browser, whatever takes long. Those that need what is not
# installed here are skipped, and say so. Fails below 95 % of the package's branches and lines.
test-all: install
	$(PYTEST) --cov --cov-report=term --cov-fail-under=95 $(PYTEST_OPTIONS)

check: format lint types test

format: install
	$(BIN)/ruff format --check .

lint: install
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

# The site, without a network, to be hosted as it is; whatever Sphinx warns of is an error. Its notebooks train, in two minutes on two
# cores, and so does the store of its example page, which is kept.
docs: install
	$(BIN)/python -m sphinx -c docs -d build/doctrees -W --keep-going -q . build/site

# The README's sample with its picture, and the pictures of terminal sessions, from commands that are run.
recordings: install
	$(BIN)/python docs/record_sample.py
	$(BIN)/python docs/record_terminal.py

clean:
	rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
