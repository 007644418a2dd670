"""How poetry creates an environment: one sync; from mirrors or a folder, pip with hashes."""

import sys
from collections.abc import Callable
from pathlib import Path

from sources import Sources, pip_install, write_requirements

BRINGS_PYTHON = False
NEEDS = ("poetry", "2.3", "https://python-poetry.org/docs/#installation")
"""The command, its minimum version, and where to get it."""


def prefix(environment: str) -> None:
    """The folder that the manager insists on: none, any will do."""


def install(prefix: Path, environment: str, sources: Sources, run: Callable[..., None]) -> None:
    """Create the environment in `prefix`."""
    run([sys.executable, "-m", "venv", prefix])
    if sources.are_public:
        sync = ["poetry", "sync", "--no-root", "--no-interaction", "--with", "dev"]
        run([*sync, "--extras", environment], {"VIRTUAL_ENV": str(prefix)})
        return
    # poetry accepts mirrors only in pyproject.toml, where they would change the lock.
    pip = pip_install(prefix / "bin" / "python")
    for index, file in write_requirements(environment, prefix):
        run([*pip, *sources.pip_options(index), "--requirement", file])
