# Diverse Image Colorization. `make book` and `make test` set up .venv by themselves.
PYTHON ?= python3
PORT ?= 8000
WORKERS ?= 2
STUDENTS ?= 30
JOBS ?= 2
BIN := .venv/bin
PAGE := _build/html/index.html

.DEFAULT_GOAL := help
.PHONY: help venv book test soak versions execute assignments rehearse mutate serve lint clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

venv:  ## set up .venv (the other targets do it when needed)
	@command -v "$(PYTHON)" >/dev/null || { echo "There is no $(PYTHON). Install Python 3.10 to 3.13, or name one: make book PYTHON=python3.12"; exit 1; }
	@"$(PYTHON)" book/_tools/setup_venv.py

book: venv  ## build the book from a clean folder; any warning is an error
	@rm -rf _build/html _build/.doctrees
	@$(BIN)/jupyter-book build . -W --keep-going
	@echo "The book is built. Open $(CURDIR)/$(PAGE)"

test: venv  ## run every check: library, style, notebooks, book (WORKERS=1: one after the other)
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

soak: venv  ## the checks that take an hour: thousands of broken files, a hundred kills
	@$(BIN)/python -m pytest tests/soak -m soak

versions: venv  ## run the library's tests with the oldest and the newest versions; fetches gigabytes (OLDEST=, NEWEST=: the two Pythons)
	@$(BIN)/python -m book._tools.versions oldest newest $(if $(OLDEST),--oldest-python "$(OLDEST)") $(if $(NEWEST),--newest-python "$(NEWEST)")

execute: venv  ## run the chapters whose outputs are out of date, and store the new outputs (FORCE=1: all of them)
	@$(BIN)/python -m book._tools.execute $(if $(FORCE),--force)

assignments:  ## make student notebooks, autograders, solutions and rubrics (SEED=your-secret-word; ASSIGNMENT=1: only that one)
	@test -n "$(SEED)" || { echo "Hidden tests draw their inputs from your seed. Name one and keep it: make assignments SEED=a-secret-word"; exit 1; }
	@$(MAKE) --no-print-directory venv
	@$(BIN)/python -m assignments make $(ASSIGNMENT) --seed "$(SEED)"

rehearse: venv  ## grade a class of thirty invented students, and compare with the marks that are due (ASSIGNMENT=1: only that one)
	@$(BIN)/python -m assignments rehearse $(ASSIGNMENT) --students $(STUDENTS) --jobs $(JOBS) --out _build/rehearsal

mutate: venv  ## break the library on purpose and see the chapters notice (CHAPTER=01_seeing_in_lab: only that one)
	@$(BIN)/python -m book._tools.mutate $(if $(CHAPTER),--chapter $(CHAPTER))

serve: book  ## build the book and show it on http://127.0.0.1:8000 (PORT=... for another)
	@echo "http://127.0.0.1:$(PORT) - Ctrl-C ends it"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

lint: venv  ## check style and types only
	@$(BIN)/ruff check .
	@$(BIN)/mypy

clean:  ## remove what was built; .venv stays
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find assignments book divcolor_lib tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
