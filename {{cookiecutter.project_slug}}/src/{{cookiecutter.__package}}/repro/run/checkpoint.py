"""Checkpoints that survive a kill at any time, detect damage, and contain no pickle."""

import logging
from pathlib import Path
from typing import Any

from ..backend.state import digest, from_file, to_bytes
from ..files import checkpoint_path, checkpoint_step, list_checkpoints, write_whole

_log = logging.getLogger(__name__)


def save_checkpoint(folder: Path, state: dict[str, Any], *, keep: int) -> Path:
    """Write the checkpoint of a step, `state["step"]`; keep it, the best, the `keep` newest.

    A kill at any instant leaves either the complete new checkpoint or the previous one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = checkpoint_path(folder, state["step"])
    write_whole(path, to_bytes(state))
    steps = [checkpoint_step(each) for each in list_checkpoints(folder)]
    for step in steps:
        if step > state["step"]:  # damaged, so an earlier one was resumed
            later = checkpoint_path(folder, step)
            later.replace(later.with_suffix(".damaged"))
    for step in [step for step in steps if step <= state["step"]][:-keep]:
        if step != state["best"]["step"]:
            checkpoint_path(folder, step).unlink()
    return path


def load_latest(folder: Path) -> dict[str, Any] | None:
    """The state of the newest intact checkpoint; damaged ones are reported and skipped.

    `None` if there is no checkpoint: the run was stopped before its first one.

    Raises:
        ValueError: there are checkpoints, but none of them is intact.
    """
    refused = []
    for path in reversed(list_checkpoints(folder)):
        try:
            state = from_file(path)
        except ValueError as error:
            refused.append(str(error))
            continue
        for message in refused:
            _log.warning("%s; taking the one before", message)
        return state
    if refused:
        raise ValueError(f"no whole checkpoint in {folder}: {refused[0]}")
    return None


def checkpoint_digest(path: Path) -> str:
    """The digest of a checkpoint's state, recomputed from the file.

    Raises:
        ValueError: as `from_file`.
    """
    return digest(from_file(path))
