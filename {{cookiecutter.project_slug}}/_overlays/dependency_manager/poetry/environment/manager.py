"""How poetry makes an environment: one sync; from mirrors or a folder by pip, with hashes."""

import sys
from collections.abc import Callable
from pathlib import Path

from sources import Sources, pip_install, write_requirements

BRINGS_PYTHON = False
NEEDS = ("poetry", "2.3", "https://python-poetry.org/docs/#installation")
"""The command, its oldest version that will do, and where to get it."""


def prefix(environment: str) -> None:
    """Where the manager insists on making the environment: nowhere."""


def install(prefix: Path, environment: str, sources: Sources, run: Callable[..., None]) -> None:
    """Make the environment in `prefix`."""
    run([sys.executable, "-m", "venv", prefix])
    if sources.are_public:
        sync = ["poetry", "sync", "--no-root", "--no-interaction", "--with", "dev"]
        run([*sync, "--extras", environment], {"VIRTUAL_ENV": str(prefix)})
        return
    # poetry takes mirrors from pyproject.toml only, where they would change the lock.
    pip = pip_install(prefix / "bin" / "python")
    for index, file in write_requirements(environment, prefix):
        run([*pip, *sources.pip_options(index), "--requirement", file])
