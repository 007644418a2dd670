{% set row = stack(cookiecutter.stack) %}
{% if row.of.own_index %}
# pip: two files per accelerator, torch by itself (it may come from a separate index) and the
# rest; every file with its hash. `make lock` resolves them again, with uv from .envs/tool-lock.
{% else %}
# pip: a file per accelerator, every package with its hash. `make lock` resolves them again, with uv
# from .envs/tool-lock.
{% endif %}
UV := .envs/tool-lock/bin/uv
COMPILE = $(UV) pip compile --universal --generate-hashes --only-binary=:all: --no-header --quiet \
    --no-annotate --python-version {{ cookiecutter.python_version }}
CUTOFF := --exclude-newer {{ cutoff() }}{{ ' --exclude-newer-package torch=false' if row.of.own_index }}
export MACOSX_DEPLOYMENT_TARGET := 14.0

lock: $(UV) ## re-resolve every environment; commit the updated lock
{% for name, facts in row.accelerators | items %}
	$(COMPILE) $(CUTOFF) pyproject.toml --extra {{ name }} --group dev{{ ' --no-emit-package torch' if row.of.own_index }} \
	    --output-file requirements/{{ name }}.txt
{% if row.of.own_index %}
	echo "torch=={{ facts.build }} ; {{ torch_marker(cookiecutter, name) }}" > requirements/torch-{{ name }}.in
	$(COMPILE) requirements/torch-{{ name }}.in --no-deps \
	    {{ '--index-url $(or $(PYTORCH_INDEX_%s),%s) --emit-index-url ' % (name | upper, facts.index) if facts.index }}--output-file requirements/torch-{{ name }}.txt
	rm requirements/torch-{{ name }}.in
{% endif %}
{% endfor %}
{% if row.of.own_index %}
	# macOS has one build, also on PyPI. Resolved together with the above, +cpu would satisfy it.
	echo "torch=={{ row.version }} ; sys_platform == 'darwin'" | \
	    $(COMPILE) - --no-deps >> requirements/torch-cpu.txt
{% endif %}

$(UV): | python
	$(PYTHON) -m venv .envs/tool-lock
	.envs/tool-lock/bin/python -m pip install --disable-pip-version-check --quiet uv=={{ tool("uv") }}

notebook: setup ## open the notebooks in JupyterLab
	$(PY) -m pip install --disable-pip-version-check --require-hashes --no-deps --quiet \
	    --requirement requirements/notebook.txt
	$(PY) -m jupyter $(LAB)
