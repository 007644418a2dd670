"""How conda creates an environment: from conda-lock's file, each package with its sha256."""

import os
from collections.abc import Callable
from pathlib import Path

from locked import ROOT, read_text
from sources import Sources

BRINGS_PYTHON = True
CONDA_LOCK = os.environ.get("CONDA_LOCK", "conda-lock")
NEEDS = (CONDA_LOCK, "3.0", "pipx install conda-lock")
"""The command, its minimum version, and where to get it."""
CHANNEL = "https://conda.anaconda.org/conda-forge"


def prefix(environment: str) -> None:
    """The folder that the manager insists on: none, any will do."""


def install(prefix: Path, environment: str, sources: Sources, run: Callable[..., None]) -> None:
    """Create the environment in `prefix`."""
    lock = ROOT / f"{environment}.conda-lock.yml"
    if not sources.are_public:
        # Only the addresses change: files from a mirror are still checked by sha256.
        folder = sources.wheelhouse.as_uri() if sources.wheelhouse else ""
        text = read_text(lock).replace(CHANNEL, folder or sources.conda_channel or CHANNEL)
        lock = ROOT / ".envs" / f"mirrored.{lock.name}"
        lock.write_text(text, encoding="utf-8")
    offline = {"CONDA_OFFLINE": "true"} if sources.wheelhouse else {}
    run([CONDA_LOCK, "install", "--prefix", prefix, lock], offline)
