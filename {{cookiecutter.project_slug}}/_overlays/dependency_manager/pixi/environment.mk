# pixi: one lock for both environments and all platforms.
PY := pixi run --locked --environment $(ACCELERATOR) python
READY = test -d .pixi/envs/$(ACCELERATOR)

setup: | pixi ## install the locked environment for ACCELERATOR
	@test -f pixi.lock || { echo "error: pixi.lock is missing: run make lock" >&2; exit 2; }
	pixi install --locked --environment $(ACCELERATOR)
	$(PY) -m pip install --no-index --no-deps --no-build-isolation --editable .
	$(PY) -c "import torch; print('torch', torch.__version__, 'GPU:', torch.cuda.is_available())"

lock: | pixi ## resolve all environments anew into pixi.lock
	pixi lock

notebook: | pixi ## open the notebooks in JupyterLab
	pixi run --locked --environment $(ACCELERATOR)-notebook jupyter lab --ip 127.0.0.1 notebooks

mlflow: | pixi ## show tracked runs on http://127.0.0.1:5000, with a server in an environment of its own
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false pixi exec --spec mlflow={{ pins('mlflow').mlflow }} mlflow server \
	    --workers 1 --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///mlflow.db \
	    --artifacts-destination mlartifacts

.PHONY: pixi
pixi:
	@command -v pixi >/dev/null || { echo "error: pixi not found: install it from" \
	    "https://pixi.sh/latest/installation/" >&2; exit 2; }
