# conda: packages from conda-forge; conda-lock pins each with its hash, one file per accelerator.
CONDA_LOCK ?= conda-lock
export CONDA_LOCK
# Any Python can start the set-up; the environment has the project's own, and YAML for the lock.
PYTHON := $(or $(filter-out python{{ cookiecutter.python_version }},$(PYTHON)),python3)
LOCK_PYTHON = $(PY)
LOCK_CPU := --platform linux-64 --platform linux-aarch64 --platform osx-arm64
LOCK_CUDA := --platform linux-64 --virtual-package-spec virtual-packages.cuda.yml

lock: ## re-resolve every environment; commit the updated lock
	@command -v $(CONDA_LOCK) >/dev/null || { echo "error: conda-lock not found: install it with" \
	    "pipx install conda-lock=={{ tool('conda-lock') }}" >&2; exit 2; }
{% for name in stack(cookiecutter.stack).accelerators %}
	$(CONDA_LOCK) lock --file environment.{{ name }}.yml --lockfile {{ name }}.conda-lock.yml \
	    $(LOCK_{{ name | upper }})
{% endfor %}

notebook: setup ## open the notebooks in JupyterLab
	$(PY) -m jupyter $(LAB)
