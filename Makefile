# Two commands: `make` does everything once, `make test` proves it. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SLOTS ?= $(shell nproc 2>/dev/null || echo 1)
# One worker of the tests waits for the class that is graded on the cores that the others leave.
WORKERS ?= $(shell expr $(SLOTS) / 2 + 1)
# Unpinned threads fight for the cores: a 4 s training then takes 100 s.
export OMP_NUM_THREADS ?= 1
export PYTHONPATH := $(CURDIR)

HOMEWORKS := $(notdir $(patsubst %/rubric.py,%,$(wildcard solutions/*/rubric.py)))
CLASS := tests/submissions
GRADES := _build/grades
LIBRARY := $(shell find dulcourse -name '*.py')
BOOK := _config.yml _toc.yml $(wildcard benchmarks/results/*.json) $(shell find book -type f -not -path '*/.*' -not -name '*.pyc')

.PHONY: all help setup wall release book grade test lint mutants bench dist clean
all: release book grade
	@echo
	echo "The book:    $(CURDIR)/_build/html/index.html"
	for homework in $(HOMEWORKS); do echo "The report:  $(CURDIR)/$(GRADES)/$$homework/index.html"; done

help:
	@echo "make          set up, release the homework, render the book, grade the example class"
	echo "make test     set up, lint, run every test"
	echo "make mutants  put bugs into copies of the source, one at a time: a test must notice each (long)"
	echo "make book     render the book into _build/html"
	echo "make grade    grade the example class into $(GRADES)"
	echo "make release  build the students' notebooks from solutions/"
	echo "make bench    rerun the benchmarks (long)"
	echo "make dist     build the wheel"
	echo "make clean    remove what was built (the environment stays)"

# --- set-up -----------------------------------------------------------------------------------------------------

setup: $(VENV)/.installed
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
	  echo "dulcourse needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Run: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || {
	  echo "$(PYTHON) cannot make a virtual environment. Run: sudo apt-get install python3-venv"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# The one system package: the sandbox in which students' notebooks run.
wall:
	@command -v bwrap >/dev/null && exit 0
	echo "Installing bubblewrap, the sandbox that notebooks are run in."
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq bubblewrap
	elif command -v apt-get >/dev/null && sudo -n true 2>/dev/null; then
	  sudo -n apt-get update -qq && sudo -n apt-get install -y -qq bubblewrap
	else
	  echo "bubblewrap is missing and cannot be installed without your password. Run: sudo apt-get install bubblewrap"; exit 2
	fi

# --- the course -------------------------------------------------------------------------------------------------

release: _build/released
_build/released: $(VENV)/.installed $(LIBRARY) autograder/release.py $(shell find solutions -type f -not -name '*.pyc')
	@mkdir -p _build
	$(BIN)/autograder release --all
	touch $@

book: _build/html/index.html
_build/html/index.html: $(VENV)/.installed $(LIBRARY) $(BOOK)
	@$(BIN)/python book/build.py
	touch $@

grade: $(VENV)/.installed wall release
	@for homework in $(HOMEWORKS); do
	  $(BIN)/autograder grade $$homework --class $(CLASS)/$${homework%%_*} --out $(GRADES)/$$homework --tier smoke --slots $(SLOTS)
	  $(BIN)/autograder report $(GRADES)/$$homework --names >/dev/null  # these students are invented
	done

# --- proof ------------------------------------------------------------------------------------------------------

lint: $(VENV)/.installed
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

test: $(VENV)/.installed wall lint release book
	@DULCOURSE_CLASS_OUT=$(CURDIR)/$(GRADES) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

mutants: $(VENV)/.installed
	@$(BIN)/python -m tests.mutants --jobs $(SLOTS)

bench: $(VENV)/.installed
	@$(BIN)/python -m benchmarks.digits
	$(BIN)/python -m benchmarks.sampling
	$(BIN)/python -m benchmarks.grading
	$(BIN)/python -m benchmarks.regrading

dist: $(VENV)/.installed
	@$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	ls dist

clean:
	@rm -rf _build dist build
