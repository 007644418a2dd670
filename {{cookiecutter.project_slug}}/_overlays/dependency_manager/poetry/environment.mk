# poetry 2: one lock; the extras `cpu` and `cuda` exclude each other.
export POETRY_VIRTUALENVS_IN_PROJECT := true
PY := .venv/bin/python
READY = test -x $(PY)

setup: | poetry ## install the locked environment for ACCELERATOR
	@test -f poetry.lock || { echo "error: poetry.lock is missing: run make lock" >&2; exit 2; }
	poetry env use $(PYTHON)
	poetry sync --extras $(ACCELERATOR) --with dev
	$(PY) -c "import torch; print('torch', torch.__version__, 'GPU:', torch.cuda.is_available())"

lock: | poetry ## resolve all environments anew into poetry.lock
	poetry env use $(PYTHON)
	poetry lock

notebook: | poetry ## open the notebooks in JupyterLab
	poetry install --extras $(ACCELERATOR) --with dev,notebook
	poetry run jupyter lab --ip 127.0.0.1 notebooks

mlflow: ## show tracked runs on http://127.0.0.1:5000, with a server in an environment of its own
	test -x .venv-mlflow/bin/mlflow || { $(PYTHON) -m venv .venv-mlflow && \
	    .venv-mlflow/bin/python -m pip install --quiet mlflow=={{ pins('mlflow').mlflow }}; }
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false .venv-mlflow/bin/mlflow server --workers 1 \
	    --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///mlflow.db \
	    --artifacts-destination mlartifacts

.PHONY: poetry
poetry:
	@command -v poetry >/dev/null || { echo "error: poetry not found: install it from" \
	    "https://python-poetry.org/docs/#installation" >&2; exit 2; }
