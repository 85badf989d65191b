# make run    start llamactl in the foreground       make test   run the tests (ARGS="-k proxy")
# make demo   the same, with a small real model      make lint   ruff and mypy, as CI runs them
# make bench  measure the proxy (ARGS=...)           make typecheck   mypy alone

# Which Python makes the environment; "make run PYTHON=/path/to/python3.12" says another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

# Where the environment is; "make test VENV=.venv-3.13 PYTHON=python3.13" tests on another Python.
VENV = .venv
BIN := $(VENV)/bin
ARGS ?=

.DELETE_ON_ERROR:
.PHONY: run demo test lint typecheck bench

run: $(VENV)/.run
	@$(BIN)/python manage.py run $(ARGS)

demo: $(VENV)/.demo
	@$(BIN)/python manage.py run --demo $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy .

typecheck: $(VENV)/.dev
	$(BIN)/mypy .

bench: $(VENV)/.dev
	$(BIN)/python -m bench $(ARGS)

# bench-litellm, bench-granian, bench-py-spy: what else is measured or measures, each in an
# environment of its own under bench/.
bench-%: bench/requirements-%.txt $(BIN)/python
	@echo "Installing $* into bench/.$* ..."
	@$(BIN)/python -m venv bench/.$*
	@bench/.$*/bin/python -m pip install --disable-pip-version-check --requirement $<

# A stamp for each set of requirements: pip runs again only when its file has changed.
$(VENV)/.run: requirements.txt
$(VENV)/.demo: requirements-demo.txt requirements.txt
$(VENV)/.dev: requirements-dev.txt requirements-demo.txt requirements.txt

REQUIREMENTS = $(firstword $(filter %.txt,$^))

$(VENV)/.run $(VENV)/.demo $(VENV)/.dev: $(BIN)/python
	@echo "Installing $(REQUIREMENTS) into $(VENV) (the first time about a minute) ..."
	@$(BIN)/python -m pip install --disable-pip-version-check --requirement $(REQUIREMENTS)
	@touch $@

$(BIN)/python:
	@if test -z "$(PYTHON)"; then \
		echo "llamactl needs Python 3.11 or newer, and none was found. Install one, or say where it is:" >&2; \
		echo "  make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "llamactl needs Python 3.11 or newer; $(PYTHON) is older, or does not start" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
		echo "Python's venv module is missing; on Debian: apt install python3-venv" >&2; exit 1; }
