# The commands of the template itself; a generated project has a Makefile of its own.
PYTHON ?= python3
DEMO_STACK ?= torch-2.13.0-cpu
DEMO_MANAGER ?= pip
VENV := build/venv
TOOLS := $(VENV)/.installed
PY := $(VENV)/bin/python

# Removing installed projects file by file takes minutes; pytest drops them three runs later.
KEPT := --keep-baked-projects
TOGETHER := --dist loadfile --no-loadscope-reorder

# What the other verbs `make test-…` try.
NOT_HERE := not slow and not containers and not upgrades and not faults and not surroundings

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-surroundings test-faults test-upgrades test-containers test-slow lint bench docs expected pictures matrix environments menu surroundings locks release clean

help: ## list all commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(TOOLS) ## bake a project into build/demo, set it up, train, verify
	$(PY) tools/demo.py $(DEMO_STACK) $(DEMO_MANAGER)

# Two at a time; the tests of one installed project stay together, in the order of the files that
# `tests/conftest.py` says; by itself, xdist would put a file of few long tests last.
test: lint ## all bakes, and projects that really install, train and verify
	$(PY) -m pytest -n 2 -m "not real and $(NOT_HERE)"
	$(PY) -m pytest $(KEPT) -n 2 $(TOGETHER) -m "real and $(NOT_HERE)"

test-fast: lint ## the same without the projects that are installed
	$(PY) -m pytest -n 2 -m "not real and $(NOT_HERE)"

test-surroundings: $(TOOLS) ## every command in other people's shells, copies, limits and git states
	$(PY) -m pytest -n 2 $(TOGETHER) -m "surroundings and not slow"

test-faults: $(TOOLS) ## planted faults, damaged runs, full disks, signals: seen, refused, survived
	$(PY) -m pytest $(KEPT) -n 2 $(TOGETHER) -m "faults and not slow"

test-upgrades: $(TOOLS) ## upgrade projects from every release, by cruft, make upgrade and replay
	$(PY) -m pytest -n 2 -m "upgrades and not slow"

test-containers: $(TOOLS) ## build the images, run the services and a Slurm; fetches what is not here
	$(PY) -m pytest $(KEPT) -m "containers and not slow"

test-slow: $(TOOLS) ## the long checks: kills at every step and instant, planted faults, a real MLflow server
	$(PY) -m pytest -m slow

lint: $(TOOLS) ## style of the template, its unrendered sources included
	$(PY) -m ruff check --config pyproject.toml .
	$(PY) -m ruff format --config pyproject.toml --check .
	$(PY) tools/menu.py --check
	$(PY) tools/surroundings.py --check

bench: $(TOOLS) ## speed, as ratios side by side: generation, training, order, segments, setup, images
	$(PY) benchmarks/bake.py
	$(PY) benchmarks/training_loop.py
	$(PY) benchmarks/lightning_loop.py
	$(PY) benchmarks/order.py
	$(PY) benchmarks/segments.py
	$(PY) benchmarks/costs.py
	$(PY) benchmarks/ranks.py
	$(PY) benchmarks/versions.py
	$(PY) benchmarks/runs.py
	$(PY) benchmarks/setup.py
	$(PY) benchmarks/containers.py

expected: $(TOOLS) ## measure the baseline in the demo and take the figures over
	$(PY) tools/expected.py

pictures: $(TOOLS) ## draw the README's pictures from runs of the demo's project
	$(PY) tools/pictures.py

docs: $(TOOLS) ## make the site of all documents in build/site/html
	$(PY) tools/site.py

matrix: $(TOOLS) ## check the matrix against PyPI's metadata; propose rows for new releases
	$(PY) tools/matrix.py

environments: $(TOOLS) ## the table of all stacks, managers and platforms, each cell checked
	$(PY) tools/environments.py

menu: $(TOOLS) ## write the menu and the README's table from data/
	$(PY) tools/menu.py

surroundings: $(TOOLS) ## write the page of surroundings from the tests' rows
	$(PY) tools/surroundings.py

locks: $(TOOLS) ## resolve the shipped locks again, from PyPI's metadata
	$(PY) tools/locks.py $(VENV)/bin/uv

release: lint ## release VERSION: changelog, commit, tag, and open the next one
	$(PY) tools/release.py $(VERSION)

$(TOOLS): requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check --quiet --requirement requirements-dev.txt
	touch $@

clean: ## drop all that was built
	rm -rf build
