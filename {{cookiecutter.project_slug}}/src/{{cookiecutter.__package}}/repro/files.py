"""Where things are: the project and the files of a run directory; and how files are written.

Standard library only: this is imported before it is safe to import anything else.
"""

import os
from pathlib import Path

from .backend.facts import CHECKPOINT

PROJECT = __package__.partition(".")[0]
"""Name of the package that contains this folder."""
PACKAGE = Path(__file__).resolve().parents[1]
SOURCE = PACKAGE.parent

MANIFEST = "manifest.json"
CONFIG = "config.yaml"
STEPS = "steps.jsonl"
METRICS = "metrics.csv"
CURVES = "curves.png"
WEIGHTS = "model.safetensors"
CHECKPOINTS = "checkpoints"


def checkpoint_path(folder: Path, step: int) -> Path:
    """Path of the checkpoint of `step` in the folder of a run's checkpoints."""
    return folder / f"step-{step:08d}{CHECKPOINT}"


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    named = (p for p in folder.glob(f"step-*{CHECKPOINT}") if p.stem[5:].isdecimal())
    return sorted(named, key=checkpoint_step)


def checkpoint_step(path: Path) -> int:
    """The step at which a checkpoint was saved."""
    return int(path.stem.removeprefix("step-"))


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file atomically: under a temporary name, flushed to disk, then renamed."""
    data = content.encode() if isinstance(content, str) else content
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def find_project_root() -> Path:
    """The checkout: the folder with `pyproject.toml` above this file, else the working folder."""
    for folder in SOURCE.parents:
        if (folder / "pyproject.toml").is_file():
            return folder
    return Path.cwd()
