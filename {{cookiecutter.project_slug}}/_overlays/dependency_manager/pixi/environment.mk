# pixi: one lock for both environments and all platforms.
# Any Python can start the set-up; the environment has the project's own, and YAML for the lock.
PYTHON := $(or $(filter-out python{{ cookiecutter.python_version }},$(PYTHON)),python3)
LOCK_PYTHON = $(PY)

lock: | pixi ## re-resolve every environment; commit the updated lock
	pixi lock

notebook: | pixi ## open the notebooks in JupyterLab
	PYTHONPATH=src pixi run --locked --environment $(ACCELERATOR)-notebook jupyter $(LAB)

.PHONY: pixi
pixi:
	@command -v pixi >/dev/null || { echo "error: pixi not found: install it from" \
	    "https://pixi.sh/latest/installation/" >&2; exit 2; }
