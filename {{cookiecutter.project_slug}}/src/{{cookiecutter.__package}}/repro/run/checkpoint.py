"""Checkpoints that a kill cannot tear, that say when they are damaged, and that hold no pickle."""

import logging
from pathlib import Path
from typing import Any

from ..backend.state import digest, from_file, to_bytes
from ..files import checkpoint_path, checkpoint_step, list_checkpoints, write_whole

_log = logging.getLogger(__name__)


def save_checkpoint(folder: Path, state: dict[str, Any], *, keep: int) -> Path:
    """Write `folder/step-XXXXXXXX.pt` for `state["step"]`; keep it, the best, the `keep` newest.

    At any instant a kill leaves either the whole new checkpoint or the one before it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = checkpoint_path(folder, state["step"])
    write_whole(path, to_bytes(state))
    steps = [checkpoint_step(each) for each in list_checkpoints(folder)]
    for step in steps:
        if step > state["step"]:  # the run was resumed from before it: it was damaged
            later = checkpoint_path(folder, step)
            later.replace(later.with_suffix(".damaged"))
    for step in [step for step in steps if step <= state["step"]][:-keep]:
        if step != state["best"]["step"]:
            checkpoint_path(folder, step).unlink()
    return path


def load_latest(folder: Path) -> dict[str, Any] | None:
    """The state of the newest whole checkpoint; a damaged one is named and the one before taken.

    `None` where there is no checkpoint: the run was stopped before its first one.

    Raises:
        ValueError: there are checkpoints, and none of them is whole.
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
