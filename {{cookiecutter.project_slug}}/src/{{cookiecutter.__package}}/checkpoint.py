"""Checkpoints that a kill cannot tear, that say when they are damaged, and that hold no pickle."""

import hashlib
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

_log = logging.getLogger(__name__)


def save_checkpoint(folder: Path, state: dict[str, Any], *, keep: int) -> Path:
    """Write `folder/step-XXXXXXXX.pt` for `state["step"]`; keep it, the best, the `keep` newest.

    The file is written under another name, flushed to the disk and renamed: at any instant a
    kill leaves either the whole new checkpoint or the one before it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = checkpoint_path(folder, state["step"])
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save({"digest": digest(state), "state": state}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    steps = [_step(each) for each in list_checkpoints(folder)]
    for step in steps:
        if step > state["step"]:  # the run went on from before it: it was damaged
            later = checkpoint_path(folder, step)
            later.replace(later.with_suffix(".damaged"))
    for step in [step for step in steps if step <= state["step"]][:-keep]:
        if step != state["best"]["step"]:
            checkpoint_path(folder, step).unlink()
    return path


def checkpoint_path(folder: Path, step: int) -> Path:
    """The checkpoint of a step."""
    return folder / f"step-{step:08d}.pt"


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted((p for p in folder.glob("step-*.pt") if p.stem[5:].isdecimal()), key=_step)


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def load_latest(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The state of the newest whole checkpoint; a damaged one is named and the one before taken.

    `None` where there is no checkpoint: the run was stopped before its first one.

    Raises:
        ValueError: there are checkpoints, and none of them is whole.
    """
    refused = []
    for path in reversed(list_checkpoints(folder)):
        try:
            state = load_checkpoint(path, device)
        except ValueError as error:
            refused.append(str(error))
            continue
        for message in refused:
            _log.warning("%s; taking the one before", message)
        return state
    if refused:
        raise ValueError(f"no whole checkpoint in {folder}: {refused[0]}")
    return None


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint and hold it against its digest.

    Raises:
        ValueError: the file is cut short, changed, or not one of ours.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of what a damaged file may hold
            content = torch.load(path, map_location=device, weights_only=True)
        state, expected = content["state"], content["digest"]
        missing = {"step", "best", "logs", "model", "optimizer"} - set(state)
        found = digest(state)
    except Exception as error:  # a damaged archive fails in many ways, and all mean the same
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} is not a whole checkpoint: {reason}") from None
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}: another version wrote it")
    if found != expected:
        raise ValueError(f"{path} was changed after it was written: its digest differs")
    return state


def checkpoint_digest(path: Path) -> str:
    """The digest of a checkpoint's state, recomputed from the file.

    Raises:
        ValueError: as `load_checkpoint`.
    """
    return digest(load_checkpoint(path, torch.device("cpu")))


def restore(state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a loaded state into `model` and `optimizer`, and check that it arrived there.

    Raises:
        ValueError: the live state after loading is not the saved one, bit for bit.
    """
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the checkpoint is of another model or optimizer: {reason}") from None
    live = {**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    if digest(live) != digest(state):
        raise ValueError(f"the state of step {state['step']} did not survive loading unchanged")


def digest(state: Any) -> str:
    """sha256 over every key, number and tensor of a nested state, in a fixed order."""
    total = hashlib.sha256()
    _feed(total, state)
    return total.hexdigest()


def save_weights(path: Path, model: nn.Module) -> str:
    """Write the weights as safetensors and return `weights_sha256`."""
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    partial = path.with_suffix(".partial")
    partial.write_bytes(to_safetensors(weights))
    partial.replace(path)
    return weights_sha256(weights)


def weights_sha256(weights: dict[str, Tensor]) -> str:
    """sha256 of the tensors' bytes in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(_bytes(weights[name]))
    return total.hexdigest()


def _feed(total: Any, node: Any) -> None:
    if isinstance(node, Tensor):
        total.update(f"tensor {node.dtype} {tuple(node.shape)}".encode())
        total.update(_bytes(node))
    elif isinstance(node, dict):
        total.update(f"dict {len(node)}".encode())
        for key in sorted(node, key=str):
            total.update(f"key {key!r}".encode())
            _feed(total, node[key])
    elif isinstance(node, (list, tuple)):
        total.update(f"list {len(node)}".encode())
        for item in node:
            _feed(total, item)
    else:
        total.update(f"{type(node).__name__} {node!r}".encode())


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
