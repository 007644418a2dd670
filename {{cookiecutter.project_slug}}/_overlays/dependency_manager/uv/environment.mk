# uv: one lock for both environments and all platforms.
# WHEELHOUSE=dir takes wheels from a folder too, held against the same hashes.
PY := .venv/bin/python
READY = test -x $(PY)

setup: | uv ## install the locked environment for ACCELERATOR
	@test -f uv.lock || { echo "error: uv.lock is missing: run make lock" >&2; exit 2; }
ifdef WHEELHOUSE
	uv venv --quiet --clear --python $(PYTHON) .venv
	uv export --frozen --extra $(ACCELERATOR) --no-emit-project --quiet --output-file .venv/locked.txt
	uv pip install --python $(PY) --require-hashes --no-deps --find-links $(WHEELHOUSE) --requirements .venv/locked.txt
	uv pip install --python $(PY) --no-deps --editable .
else
	uv sync --locked --extra $(ACCELERATOR) --python $(PYTHON)
endif
	$(PY) -c "import torch; print('torch', torch.__version__, 'GPU:', torch.cuda.is_available())"

lock: export MACOSX_DEPLOYMENT_TARGET := 14.0
lock: | uv ## resolve all environments anew into uv.lock
	uv lock --python $(PYTHON)

notebook: ## open the notebooks in JupyterLab
	uv run --locked --extra $(ACCELERATOR) --group notebook jupyter lab --ip 127.0.0.1 notebooks

mlflow: | uv ## show tracked runs on http://127.0.0.1:5000, with a server in an environment of its own
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false uvx --python $(PYTHON) --exclude-newer {{ cutoff() }} \
	    --from mlflow=={{ pins('mlflow').mlflow }} mlflow server --workers 1 --host 127.0.0.1 --port 5000 \
	    --backend-store-uri sqlite:///mlflow.db --artifacts-destination mlartifacts

.PHONY: uv
uv:
	@command -v uv >/dev/null || { echo "error: uv not found: install it from" \
	    "https://docs.astral.sh/uv/getting-started/installation/" >&2; exit 2; }
