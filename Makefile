# Everything a developer runs. `make demo` and `make test` set up what they need.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
BENCH := operator batches training
DRAWS := 20
SOAK := tests/unit/operator/test_stateful_run.py tests/unit/operator/test_team_history.py
# Hundreds of processes start in a run of the tests: each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Make .venv from the pinned constraints
	@hack/setup.sh

.PHONY: demo
demo: setup ## Run the main job on the embedded local cluster
	@hack/demo.sh

.PHONY: test
test: setup ## Run all tests but the graders, which `make check` runs (PYTEST_ARGS="-k name" for a part)
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not grader" $(PYTEST_ARGS)

.PHONY: soak
soak: setup ## Draw DRAWS times as many histories of runs and team budgets as `make test`, and others each time (DRAWS=20)
	@RFT_TEST_DRAWS=$(DRAWS) $(BIN)/python -m pytest -n 2 --dist loadfile --timeout 0 $(SOAK) $(PYTEST_ARGS)

.PHONY: check
check: setup ## Lint, format, types, import contracts, generated files, graders of chart, images, alerts and dashboards
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python hack/generate.py --check
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m grader tests/charts tests/unit/monitoring

.PHONY: generate
generate: setup ## Write the generated files: CRD, references of API, commands and metrics, dashboards, rendered chart
	@$(BIN)/python hack/generate.py
	@hack/render.sh

.PHONY: images
images: ## Build both images with docker, podman or buildah into build/images (see hack/images.sh)
	@hack/images.sh

.PHONY: test-images
test-images: setup ## Run the operator and a whole run from build/images, in restricted namespaces of a local cluster
	@RFT_IMAGES=build/images $(BIN)/python -m pytest tests/images

.PHONY: package
package: setup ## Make dist/: chart (signed with SIGN_KEY of SIGN_KEYRING), bills of materials, checksums
	@hack/package.sh

.PHONY: pictures
pictures: setup ## Draw the dashboards in docs/img (needs npm and Chromium)
	@PYTHONPATH=tests $(BIN)/python -m pictures

.PHONY: docs
docs: setup ## Build the documentation as a site in build/site; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: bench
bench: setup ## Measure the operator, the trainer's batches, the trainer against TRL (BENCH=operator BENCH_ARGS="--count 100" for a part)
	@set -e; export PYTHONPATH=tests; for part in $(BENCH); do case $$part in \
	  operator) $(BIN)/python -m bench $(BENCH_ARGS);; \
	  batches|training) $(BIN)/python -m bench.$$part;; \
	  *) echo "error: BENCH=$$part: write operator, batches or training" >&2; exit 2;; esac; done

.PHONY: clean
clean: ## Remove the virtual environment and caches of this checkout
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
