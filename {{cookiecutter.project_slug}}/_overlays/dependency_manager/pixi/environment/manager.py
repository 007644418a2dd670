"""How pixi creates an environment: in its own folder, from its own lock."""

from collections.abc import Callable
from pathlib import Path

from failure import SetupError
from locked import ROOT, read_text
from sources import Sources

BRINGS_PYTHON = True
NEEDS = ("pixi", "0.60", "https://pixi.sh/latest/installation/")
"""The command, its minimum version, and where to get it."""


def prefix(environment: str) -> Path:
    """The folder that the manager insists on."""
    return ROOT / ".pixi" / "envs" / environment


def install(prefix: Path, environment: str, sources: Sources, run: Callable[..., None]) -> None:
    """Create the environment in `prefix`; pixi itself replaces what differs from the lock."""
    read_text(ROOT / "pixi.lock")
    if sources.wheelhouse:
        raise SetupError("pixi installs from no folder: pack the environment with pixi-pack")
    if sources.conda_channel or sources.package_index:
        raise SetupError("pixi reads mirrors from its configuration: pixi config set mirrors …")
    run(["pixi", "install", "--locked", "--environment", environment])
