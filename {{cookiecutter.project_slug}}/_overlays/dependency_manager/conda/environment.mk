# conda: packages from conda-forge; conda-lock pins each with its hash, a file an accelerator.
CONDA_LOCK ?= conda-lock
PREFIX := $(CURDIR)/.conda-$(ACCELERATOR)
PY := $(PREFIX)/bin/python
READY = test -x $(PY)
LOCK := $(ACCELERATOR).conda-lock.yml
LOCK_CPU := --platform linux-64 --platform linux-aarch64 --platform osx-arm64
LOCK_CUDA := --platform linux-64 --virtual-package-spec virtual-packages.cuda.yml

setup: ## install the locked environment for ACCELERATOR
	@test -f $(LOCK) || { echo "error: $(LOCK) is missing: run make lock" >&2; exit 2; }
	@command -v $(CONDA_LOCK) >/dev/null || { echo "error: conda-lock not found: install it with" \
	    "pipx install conda-lock=={{ tool('conda-lock') }}" >&2; exit 2; }
	$(CONDA_LOCK) install --prefix $(PREFIX) $(LOCK)
	$(PY) -m pip install --no-index --no-deps --no-build-isolation --editable .
	$(PY) -c "import torch; print('torch', torch.__version__, 'GPU:', torch.cuda.is_available())"

lock: ## resolve all environments anew
	@command -v $(CONDA_LOCK) >/dev/null || { echo "error: conda-lock not found: install it with" \
	    "pipx install conda-lock=={{ tool('conda-lock') }}" >&2; exit 2; }
{% for name in stack(cookiecutter.stack).accelerators %}
	$(CONDA_LOCK) lock --file environment.{{ name }}.yml --lockfile {{ name }}.conda-lock.yml \
	    $(LOCK_{{ name | upper }})
{% endfor %}

notebook: ## open the notebooks in JupyterLab
	$(PY) -m jupyter lab --ip 127.0.0.1 notebooks

mlflow: ## show tracked runs on http://127.0.0.1:5000, with a server in an environment of its own
	test -x .conda-mlflow/bin/mlflow || conda create --yes --prefix .conda-mlflow --channel conda-forge \
	    --override-channels python={{ cookiecutter.python_version }} mlflow={{ pins('mlflow').mlflow }}
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false .conda-mlflow/bin/mlflow server --workers 1 \
	    --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///mlflow.db \
	    --artifacts-destination mlartifacts
