# The one door. `make demo` and `make test` are all that a fresh machine needs; both make the environment first.
# Paths are relative and quoted, so that a clone under a path with a space works.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all cluster-test check bench docs

PYTHON ?= python3
VENV ?= .venv
RUN = "$(VENV)/bin/python" -m
PYTEST = $(RUN) pytest -n logical --maxprocesses=4 --dist=worksteal

help:
	@echo "make setup     the environment, in $(VENV)"
	@echo "make demo      train on real images, predict, show where the pictures are"
	@echo "make test      the fast tests"
	@echo "make test-all  all tests, with coverage"
	@echo "make cluster-test  three hosts on this machine, brought up over ssh; as root, with iproute2 and openssh-server"
	@echo "make check     style, types, imports, documentation, size"
	@echo "make bench     the measured figures, row by row; goes on where it stopped (BENCH='--list' shows the rows)"
	@echo "make docs      the pages that repeat what the code says, and the documentation in site/"

# The stamp holds the clone's path: an environment of a clone that was moved is made again.
setup:
	@if ! [[ "$(VENV)/.useg-ready" -nt pyproject.toml && "$(VENV)/.useg-ready" -nt constraints.txt ]] \
	    || [[ "$$(cat "$(VENV)/.useg-ready")" != "$$PWD" ]]; then \
	  "$(PYTHON)" -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "useg needs Python 3.11 or newer: make PYTHON=python3.12 ...")'; \
	  echo "Making the environment in $(VENV) (some minutes, about 2 GB) ..."; \
	  "$(PYTHON)" -m venv "$(VENV)"; \
	  $(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"; \
	  echo "$$PWD" > "$(VENV)/.useg-ready"; \
	fi

demo: setup
	@"$(VENV)/bin/python" examples/demo.py

test: setup
	$(PYTEST)

test-all: setup
	$(PYTEST) --all --cov --cov-report=term:skip-covered

cluster-test: setup
	"$(VENV)/bin/python" bench/three_hosts.py $(KEEP)

check: setup
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	"$(VENV)/bin/lint-imports" --no-logo
	@site=$$(mktemp -d) && trap 'rm -rf "$$site"' EXIT && echo "mkdocs build --strict" \
	  && NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet --site-dir "$$site"
	"$(VENV)/bin/python" bench/size.py

bench: setup
	"$(VENV)/bin/python" bench/run.py $(BENCH)

docs: setup
	"$(VENV)/bin/python" docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet
	@echo "site/index.html"
