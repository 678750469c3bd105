# Everything from a fresh clone: `make demo`, `make test`. The environment is made in .venv on first use.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := demo
# The linear algebra libraries' own threads only get into the way of parallel processes.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

.PHONY: help environment test lint loops demo benchmark doc clean
.DEFAULT_GOAL := help

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

environment: $(READY) ## Make the Python environment in .venv

# Built anew whenever pyproject.toml changes; the stamp is written last, so that an interrupted or failed
# installation is never taken for a good one.
$(READY): pyproject.toml .ci/make_environment
	@.ci/make_environment $(VENV)
	@touch $@

test: $(READY) ## Check style and types, run all tests
	@$(MAKE) --no-print-directory --output-sync -j 2 lint loops
	@echo "== pytest"
	@$(BIN)/python -m pytest -n 2 --dist loadfile -q

lint: $(READY) ## Check style and types only
	@echo "== ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "== mypy"
	@$(BIN)/mypy python/lsst/diainspect

loops: $(READY) ## Compile the loops over pixels, once for all processes
	@echo "== compiled loops"
	@$(BIN)/python .ci/compile_loops.py

demo: $(READY) ## Simulate a small survey, inspect it, show what was made (in ./demo)
	@rm -rf $(DEMO)
	@$(BIN)/diainspect demo $(DEMO)

benchmark: $(READY) ## Time the hot loops
	@$(BIN)/python -m pytest benchmarks/bench_*.py -q -p no:xdist --benchmark-columns=min,median,rounds

doc: $(READY) ## Write doc/datasets.md from the code
	@$(BIN)/python doc/write_datasets.py

clean: ## Remove the environment, the demo and caches
	rm -rf $(VENV) $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
