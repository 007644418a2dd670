# poetry 2: one lock; the extras `cpu` and `cuda` exclude each other.
lock: | poetry ## re-resolve every environment; commit the updated lock
	poetry lock --regenerate

notebook: setup | poetry ## open the notebooks in JupyterLab
	VIRTUAL_ENV=$(realpath .envs/$(ACCELERATOR)) poetry install --no-root --extras $(ACCELERATOR) \
	    --with dev,notebook
	$(PY) -m jupyter $(LAB)

.PHONY: poetry
poetry:
	@command -v poetry >/dev/null || { echo "error: poetry not found: install it from" \
	    "https://python-poetry.org/docs/#installation" >&2; exit 2; }
