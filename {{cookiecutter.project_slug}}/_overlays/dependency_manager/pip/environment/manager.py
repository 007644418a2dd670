"""How pip creates an environment: from files with hashes, torch first, from its build's index."""

import sys
from collections.abc import Callable
from pathlib import Path

from locked import PYPI, ROOT
from lockfile import files
from sources import Sources, pip_install, write_requirements

BRINGS_PYTHON = False
NEEDS = None  # it comes with Python


def prefix(environment: str) -> None:
    """The folder that the manager insists on: none, any will do."""


def install(prefix: Path, environment: str, sources: Sources, run: Callable[..., None]) -> None:
    """Create the environment in `prefix`."""
    run([sys.executable, "-m", "venv", prefix])
    pip = pip_install(prefix / "bin" / "python")
    if sources.are_public:
        # A file names its index, if it is not PyPI.
        parts = [(PYPI, ROOT / "requirements" / name) for name in files(environment)]
    else:
        parts = write_requirements(environment, prefix)
    for index, file in parts:
        run([*pip, *sources.pip_options(index), "--requirement", file])
