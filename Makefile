# make run    start llamactl in the foreground       make test   run the tests (ARGS="-k proxy")
# make demo   the same, with a small real model      make lint   ruff and mypy, as CI runs them
# make bench  measure the proxy (ARGS=...)           make typecheck   mypy alone

# Which Python makes the environment; "make run PYTHON=/path/to/python3.12" says another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

BIN := .venv/bin
ARGS ?=

.DELETE_ON_ERROR:
.PHONY: run demo test lint typecheck bench

run: .venv/.run
	@$(BIN)/python manage.py run $(ARGS)

demo: .venv/.demo
	@$(BIN)/python manage.py run --demo $(ARGS)

test: .venv/.dev
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy .

typecheck: .venv/.dev
	$(BIN)/mypy .

bench: .venv/.dev
	$(BIN)/python -m bench $(ARGS)

# bench-litellm, bench-granian, bench-py-spy: what else is measured or measures, each in an
# environment of its own under bench/.
bench-%: bench/requirements-%.txt $(BIN)/python
	@echo "Installing $* into bench/.$* ..."
	@$(BIN)/python -m venv bench/.$*
	@bench/.$*/bin/python -m pip install --disable-pip-version-check --requirement $<

# A stamp for each set of requirements: pip runs again only when its file has changed.
.venv/.run: requirements.txt
.venv/.demo: requirements-demo.txt requirements.txt
.venv/.dev: requirements-dev.txt requirements-demo.txt requirements.txt

REQUIREMENTS = $(firstword $(filter %.txt,$^))

.venv/.run .venv/.demo .venv/.dev: $(BIN)/python
	@echo "Installing $(REQUIREMENTS) into .venv (the first time about a minute) ..."
	@$(BIN)/python -m pip install --disable-pip-version-check --requirement $(REQUIREMENTS)
	@touch $@

$(BIN)/python:
	@if test -z "$(PYTHON)"; then \
		echo "llamactl needs Python 3.11 or newer, and none was found. Install one, or say where it is:" >&2; \
		echo "  make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "llamactl needs Python 3.11 or newer; $(PYTHON) is older, or does not start" >&2; exit 1; }
	@echo "Making .venv with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv --clear .venv || { rm -rf .venv; \
		echo "Python's venv module is missing; on Debian: apt install python3-venv" >&2; exit 1; }
