# Everything a developer or CI runs. `make test` and `make demo` work as the first command in a fresh clone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TEST_PROCESSES ?= 2
INSTALLED := $(VENV)/.installed
TRAINING := $(VENV)/.installed-for-training
# Without compiling ahead what may never be imported.
PIP_INSTALL := -m pip install --quiet --no-compile --constraint constraints.txt --editable

.PHONY: install demo test check format lint types docs recordings clean

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

test: install
	$(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES) --dist=loadgroup --cov --cov-report=term --cov-fail-under=90 $(PYTEST_OPTIONS)

check: format lint types test

format: install
	$(BIN)/ruff format --check .

lint: install
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

# The site, without a network; whatever Sphinx warns of is an error. Its notebooks train, in about a minute on two cores.
docs: install
	$(BIN)/python -m sphinx -c docs -W --keep-going -q . build/site

# The pictures of terminal sessions, from sessions that are run.
recordings: install
	$(BIN)/python docs/record_terminal.py

clean:
	rm -rf build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
