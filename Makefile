# make run        install into .venv and show live forecasts of the shipped orders
# make test       install what the tests need, check, and run every test
# make test-fast  unit tests and doctests that take no second and no service: less than a minute
# make check      ruff, mypy, import contracts, unused names
# make soak       break workers, broker and store for half an hour; features must stay exact
# make fuzz       a million mutated records through decoder, counting and dead letters
# make clean      remove .venv, var and caches

VENV := .venv
BIN := $(VENV)/bin
SPEED ?= 3600
PYTEST_ARGS ?= -q -n 3 --dist worksteal
FAST_TESTS := tests/unit tests/property tests/golden tests/contract model stream dashboards
FAST_ARGS ?= -q -n 2 --dist worksteal -m "not (integration or e2e or soak or slow)"
CHECKS := check-style check-types check-imports check-unused

.PHONY: run test test-fast check clean tools soak fuzz $(CHECKS)
.DEFAULT_GOAL := run

run: $(VENV)/.embedded
	@exec $(BIN)/surgecast up --replay sample --speed $(SPEED)

test: $(VENV)/.test tools check
	$(BIN)/pytest $(PYTEST_ARGS)

# With bytecode a start takes half the time.
test-fast: export PYTHONDONTWRITEBYTECODE =
test-fast: $(VENV)/.test
	$(BIN)/pytest $(FAST_ARGS) $(FAST_TESTS)

check: $(VENV)/.test
	@$(MAKE) --no-print-directory --jobs --output-sync $(CHECKS)

check-style:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-types:
	$(BIN)/mypy --num-workers 2

check-imports:
	$(BIN)/lint-imports --no-cache

check-unused:
	$(BIN)/vulture

soak: $(VENV)/.test
	$(BIN)/pytest -m soak tests/integration/test_chaos.py $(PYTEST_ARGS)

fuzz: $(VENV)/.test
	PYTHONPATH=. $(BIN)/python benchmarks/fuzz.py

tools:
	@bash scripts/test_tools.sh

# The test extra contains the embedded one, so either stamp serves `make run`.
$(VENV)/.embedded: pyproject.toml scripts/venv.sh
	@if [ $(VENV)/.test -nt pyproject.toml ]; then touch $@; \
	else bash scripts/venv.sh $(VENV) embedded && touch $@; fi

$(VENV)/.test: pyproject.toml scripts/venv.sh
	@bash scripts/venv.sh $(VENV) test && touch $@

clean:
	rm -rf $(VENV) var .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
