# make help lists the targets. Each sets up .venv by itself; a second run installs and executes nothing twice.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help book test serve bench clean pages
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
PORT ?= 8000
# Give one by hand as PYTHON=...; otherwise the first of these that is new enough and can make a venv.
PYTHON ?=
CANDIDATES := $(PYTHON) python3.11 python3.12 python3.13 python3 python
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 8

book: pages ## execute the chapters, build the book, print the path of its first page
	@echo "The book: build/_build/html/index.html"

test: pages ## everything of make book, then all tests
	@MPLBACKEND=agg $(PY) -m pytest -n 2 --dist loadfile

serve: book ## serve the book on this machine (PORT=8000)
	@$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory build/_build/html

bench: $(READY) ## run the benchmarks
	@AMEM_SHAPE_CHECKS=0 $(PY) -m pytest tests/benchmarks

clean: ## remove what was executed and built (the environment stays: rm -r .venv)
	rm -rf build .pytest_cache .ruff_cache .hypothesis .benchmarks

pages: $(READY)
	@$(PY) book/_publish/execute.py
	@$(PY) book/_publish/build.py

# A .venv that was moved, or whose Python is gone, is made anew.
$(READY): constraints.txt pyproject.toml
	@if ! grep -qsF "$(CURDIR)/$(VENV)" $(VENV)/pyvenv.cfg || ! $(PY) -c "" 2>/dev/null; then \
	    base=""; \
	    for candidate in $(CANDIDATES); do \
	        if "$$candidate" -c "$(USABLE)" >/dev/null 2>&1; then base="$$candidate"; break; fi; \
	    done; \
	    if [ -z "$$base" ]; then \
	        echo "No Python >= 3.11 with the venv and ensurepip modules among: $(CANDIDATES)." >&2; \
	        echo "Install one (Debian: python3 python3-venv), or name it: make PYTHON=/path/to/python3.12" >&2; \
	        exit 1; \
	    fi; \
	    echo "Making $(VENV) with $$($$base --version)"; \
	    "$$base" -m venv --clear $(VENV); \
	fi
	@echo "Installing the pinned environment (constraints.txt)"
	@$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt torch==2.13.0 setuptools wheel
	@PYTHONWARNINGS=ignore $(PY) -m pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[book,test]'
	@touch $@
