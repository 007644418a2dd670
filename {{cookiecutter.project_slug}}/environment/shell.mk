# {{ cookiecutter.project_slug }}: keeps the caller's shell out; the Makefile includes it first.

# Commands run one after the other, in the order typed: `make -j train verify` is no exception.
.NOTPARALLEL:
# Verify only what was just trained: nothing after a failed training, even with -k.
ifeq ($(firstword $(filter train verify,$(MAKECMDGOALS))),train)
verify: | train
endif

# Keep out whatever affects imports or installation: foreign modules, settings of pip, uv, poetry
# and pixi, and the repository of a git hook. Let through what says where files come from and how
# they are reached.
export PYTHONPATH := $(CURDIR)/src
export PYTHONNOUSERSITE := 1
# Set rather than unset, since a user's pip.conf could set the same.
export PIP_USER := 0
export PIP_CONSTRAINT := /dev/null
LET_THROUGH := PYTHONPATH PYTHONNOUSERSITE PIP_USER PIP_CONSTRAINT \
    PYTHON PYTHON_VERSION PYTHONHASHSEED PYTHONUNBUFFERED \
    PYTHONDONTWRITEBYTECODE PYTHONIOENCODING PYTHONUTF8 PYTHONWARNINGS PYTHONDEVMODE PYTHONMALLOC \
    PYTHONFAULTHANDLER PYTHONTRACEMALLOC \
    PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_NO_INDEX PIP_CERT PIP_CLIENT_CERT \
    PIP_PROXY PIP_TRUSTED_HOST PIP_CACHE_DIR PIP_NO_CACHE_DIR PIP_TIMEOUT PIP_DEFAULT_TIMEOUT \
    PIP_RETRIES PIP_KEYRING_PROVIDER PIP_CONFIG_FILE PIP_DISABLE_PIP_VERSION_CHECK PIP_NO_INPUT \
    PIP_PROGRESS_BAR PIP_NO_COLOR PIP_USE_FEATURE PIP_ROOT_USER_ACTION \
    UV_DEFAULT_INDEX UV_INDEX UV_INDEX_% UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_NO_INDEX \
    UV_CACHE_DIR UV_CONFIG_FILE UV_HTTP_% UV_NATIVE_TLS UV_SYSTEM_CERTS UV_KEYRING_PROVIDER \
    UV_INSECURE_HOST UV_CONCURRENT_% UV_OFFLINE UV_LINK_MODE UV_COMPILE_BYTECODE \
    UV_REQUEST_TIMEOUT UV_PYTHON_INSTALL_% UV_PYTHON_DOWNLOADS UV_NO_PROGRESS UV_IMAGE \
    POETRY_HOME POETRY_CACHE_DIR POETRY_HTTP_BASIC_% POETRY_REPOSITORIES_% \
    POETRY_CERTIFICATES_% POETRY_PYPI_TOKEN_% POETRY_REQUESTS_% PIXI_HOME PIXI_CACHE_DIR \
    GIT_SSH GIT_SSH_% GIT_ASKPASS GIT_SSL_% GIT_HTTP_% GIT_PROXY_% GIT_CONFIG_% GIT_TERMINAL_PROMPT
unexport $(filter-out $(LET_THROUGH), \
    $(filter PYTHON% PIP_% UV_% POETRY_% PIXI_% GIT_%,$(.VARIABLES)) \
    VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV __PYVENV_LAUNCHER__)

# make accepts any `name=value` as a variable, even if nothing reads it. Accept only names in
# capitals that a makefile or .env.example mentions, and those passed down by an outer make.
in_quotes = '$(subst ','\'',$1)'
named := $(shell { sed 's/[#].*//' Makefile *.mk; sed -n 's/^[#]* *\([A-Z0-9_]*\)=.*/\1/p' .env.example; } \
    2>/dev/null | grep -owE '[A-Z][A-Z0-9_]+' | sort -u)
outer := $(shell echo "$$MAKEFLAGS")
given := $(foreach name,$(.VARIABLES),$(if $(filter command line,$(origin $(name))),$(name)))
given := $(foreach name,$(given),$(if $(findstring $(name)=,$(outer)),,$(name)))
unknown := $(if $(named),$(sort $(filter-out $(named) MAKE% SHELL,$(given))))
ifneq ($(unknown),)
$(shell echo "error: make knows no variable" $(call in_quotes,$(unknown))"; options of a command go" \
    "into ARGS, as in: make train ARGS=\"--seed 1 training.learning_rate=0.01\"" >&2)
$(error nothing was done)
endif
