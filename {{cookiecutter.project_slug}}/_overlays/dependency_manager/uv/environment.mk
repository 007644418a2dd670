# uv: one lock for both environments and all platforms.
lock: export MACOSX_DEPLOYMENT_TARGET := 14.0
lock: | uv ## re-resolve every environment; commit the updated lock
	uv lock --python $(PYTHON)

notebook: setup | uv ## open the notebooks in JupyterLab
	UV_PROJECT_ENVIRONMENT=.envs/$(ACCELERATOR) uv sync --locked --inexact --no-install-project \
	    --extra $(ACCELERATOR) --group notebook --python $(PYTHON)
	$(PY) -m jupyter $(LAB)

.PHONY: uv
uv:
	@command -v uv >/dev/null || { echo "error: uv not found: install it from" \
	    "https://docs.astral.sh/uv/getting-started/installation/" >&2; exit 2; }
