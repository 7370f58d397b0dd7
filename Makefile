# `make run` and `make test` are all it takes; each installs first, into .venv. Requires Python 3.11 or newer.
PYTHON ?= python3
# More options for installing torch, e.g. `make install TORCH_PIP_ARGS="--index-url <index with the CPU build>"`.
TORCH_PIP_ARGS ?=
# Processes that share the test files. Most tests wait for servers and for processes that they killed.
TEST_PROCESSES ?= 2

BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := run
.PHONY: run test check bench chaos install

run: install
	$(BIN)/holdfast dev

test: install
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python -m bench

chaos: install
	$(BIN)/pytest -m 'chaos or thorough'

install: $(STAMP)

# Torch first and alone, so that its options apply to nothing else.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(TORCH_PIP_ARGS) "$$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)"
	$(BIN)/python -m pip install -e '.[dev]'
	touch $@
