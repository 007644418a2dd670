"""How conda makes an environment: conda-lock's file, each package with its sha256."""

import os
from collections.abc import Callable
from pathlib import Path

from locked import ROOT, read_text
from sources import Sources

BRINGS_PYTHON = True
CONDA_LOCK = os.environ.get("CONDA_LOCK", "conda-lock")
NEEDS = (CONDA_LOCK, "3.0", "pipx install conda-lock")
"""The command, its oldest version that will do, and where to get it."""
CHANNEL = "https://conda.anaconda.org/conda-forge"


def prefix(environment: str) -> None:
    """Where the manager insists on making the environment: nowhere."""


def install(prefix: Path, environment: str, sources: Sources, run: Callable[..., None]) -> None:
    """Make the environment in `prefix`."""
    lock = ROOT / f"{environment}.conda-lock.yml"
    if not sources.are_public:
        # The addresses change and the sha256 stay: what a mirror gives is checked against them.
        folder = sources.wheelhouse.as_uri() if sources.wheelhouse else ""
        text = read_text(lock).replace(CHANNEL, folder or sources.conda_channel or CHANNEL)
        lock = ROOT / ".envs" / f"mirrored.{lock.name}"
        lock.write_text(text, encoding="utf-8")
    offline = {"CONDA_OFFLINE": "true"} if sources.wheelhouse else {}
    run([CONDA_LOCK, "install", "--prefix", prefix, lock], offline)
