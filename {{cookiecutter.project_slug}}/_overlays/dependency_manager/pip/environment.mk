# pip: two files an environment, torch by itself (it may come from an index of its own) and the
# rest; every artefact with its hash. `make lock` resolves them anew, with uv from .venv-lock.
# A changed lock or another ACCELERATOR starts from an empty environment: nothing is left over.
# WHEELHOUSE=dir takes wheels from a folder too, held against the same hashes.
VENV ?= .venv
PY := $(VENV)/bin/python
READY = test -x $(PY)
LOCK := requirements/torch-$(ACCELERATOR).txt requirements/$(ACCELERATOR).txt
INSTALL = -m pip install --disable-pip-version-check --require-hashes --no-deps \
    $(if $(WHEELHOUSE),--find-links $(WHEELHOUSE))
INSTALLED := $(VENV)/.installed-$(ACCELERATOR)

setup: $(INSTALLED) ## install the locked environment for ACCELERATOR
	$(PY) -c "import torch; print('torch', torch.__version__, 'GPU:', torch.cuda.is_available())"

$(INSTALLED): $(LOCK)
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found: install Python" \
	    "{{ cookiecutter.python_version }}, or name its path: make setup PYTHON=…" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; found = "%d.%d" % sys.version_info[:2]; found == "{{ cookiecutter.python_version }}" or sys.exit("error: this project needs Python {{ cookiecutter.python_version }}, $(PYTHON) is " + found + "; name another: make setup PYTHON=…")'
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) $(INSTALL) --requirement requirements/torch-$(ACCELERATOR).txt
	$(PY) $(INSTALL) --requirement requirements/$(ACCELERATOR).txt
	$(PY) -m pip install --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .
	$(PY) -m pip check --disable-pip-version-check
	touch $@

requirements/%.txt:
	@echo "error: $@ is missing: this environment is not locked yet; run make lock" >&2; exit 2

# --- lock ---------------------------------------------------------------------------------------
UV := .venv-lock/bin/uv
COMPILE = $(UV) pip compile --universal --generate-hashes --only-binary=:all: --no-header --quiet \
    --no-annotate --python-version {{ cookiecutter.python_version }}
CUTOFF := --exclude-newer {{ cutoff() }} --exclude-newer-package torch=false
export MACOSX_DEPLOYMENT_TARGET := 14.0

lock: $(UV) ## resolve all environments anew into requirements/
{% for name, facts in stack(cookiecutter.stack).accelerators | items %}
	$(COMPILE) $(CUTOFF) pyproject.toml --extra {{ name }} --group dev --no-emit-package torch \
	    --output-file requirements/{{ name }}.txt
	echo "{{ 'torch==%s ; sys_platform == \'linux\'' % facts.torch }}" > requirements/torch-{{ name }}.in
{% if name == "cpu" %}
	echo "torch=={{ facts.torch.split('+')[0] }} ; sys_platform == 'darwin'" >> requirements/torch-{{ name }}.in
{% endif %}
	$(COMPILE) requirements/torch-{{ name }}.in --no-deps \
	    {{ '--index-url $(or $(PYTORCH_INDEX_%s),%s) --emit-index-url ' % (name | upper, facts.index) if facts.index }}--output-file requirements/torch-{{ name }}.txt
	rm requirements/torch-{{ name }}.in
{% endfor %}

$(UV):
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --disable-pip-version-check --quiet uv=={{ tool("uv") }}

# --- services -----------------------------------------------------------------------------------
notebook: setup ## open the notebooks in JupyterLab
	$(PY) $(INSTALL) --quiet --requirement requirements/notebook.txt
	$(PY) -m jupyter lab --ip 127.0.0.1 notebooks

mlflow: ## show tracked runs on http://127.0.0.1:5000, with a server in an environment of its own
	test -x .venv-mlflow/bin/mlflow || { $(PYTHON) -m venv .venv-mlflow && \
	    .venv-mlflow/bin/python $(INSTALL) --quiet --requirement requirements/mlflow.txt; }
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false .venv-mlflow/bin/mlflow server --workers 1 \
	    --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///mlflow.db \
	    --artifacts-destination mlartifacts
