"""Checkpoints that a kill cannot tear, that say when they are damaged, and that hold no pickle."""

import hashlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

_log = logging.getLogger(__name__)

Layout = dict[str, Any]
LAYOUT = "layout"
"""Which parameter is which in the optimizer's state, where they go by position."""


def state_of(
    step: int,
    best: dict[str, Any],
    logs: dict[str, str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> dict[str, Any]:
    """Everything that a run resumes from after `step`; `logs` are the digests of its logs there."""
    state = {"step": step, "best": best, "logs": logs, LAYOUT: layout_of(model, optimizer)}
    return state | {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


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
    """Read a checkpoint and check it against its digest.

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

    Nothing is written unless every tensor fits where it belongs, by name, shape and dtype.

    Raises:
        ValueError: the state is of another model or optimizer, or the live state after loading is
            not the saved one, bit for bit.
    """
    if misfit := next(_misfits(state, model, optimizer), None):
        raise ValueError(f"the checkpoint is of another model or optimizer: {misfit}")
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the checkpoint is of another model or optimizer: {reason}") from None
    live = {**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    if digest(live) != digest(state):
        raise ValueError(f"the state of step {state['step']} did not survive loading unchanged")


def layout_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> Layout:
    """Kind of `optimizer`; name, shape and dtype of each parameter, group by group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [
        [(names.get(id(p), "?"), *_form(p)) for p in group["params"]]
        for group in optimizer.param_groups
    ]
    return {"optimizer": type(optimizer).__name__, "groups": groups}


def _misfits(
    state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[str]:
    both = (state["model"], model.state_dict())
    saved, live = ({name: _form(tensor) for name, tensor in each.items()} for each in both)
    for name in [*saved, *(live.keys() - saved.keys())]:
        if saved.get(name) != live.get(name):
            yield f"{name} was {_said(saved.get(name))}, is {_said(live.get(name))}"
    layout, live_layout = state.get(LAYOUT), layout_of(model, optimizer)
    if layout and layout["optimizer"] != live_layout["optimizer"]:
        yield f"the optimizer was {layout['optimizer']}, is {live_layout['optimizer']}"
    now = live_layout["groups"]
    groups = [group["params"] for group in state["optimizer"]["param_groups"]]
    if [*map(len, groups)] != [*map(len, now)]:
        counts = (" + ".join(str(len(group)) for group in each) for each in (groups, now))
        yield "the optimizer had {} parameters, has {}".format(*counts)
        return
    if layout:
        pairs = zip(chain(*layout["groups"]), chain(*now), strict=True)
        for (name, *form), (here, *live_form) in pairs:
            if (name, form) != (here, live_form):
                was, now_is = f"{name} {_said(form)}", f"{here} {_said(live_form)}"
                yield f"the optimizer had {was} where it has {now_is} now"
        return
    # A checkpoint of an older version: the moments of these optimizers have their parameter's form.
    for position, (name, shape, _) in zip(chain(*groups), chain(*now), strict=True):
        for key, value in state["optimizer"]["state"].get(position, {}).items():
            if isinstance(value, Tensor) and value.dim() and list(value.shape) != shape:
                yield f"{key} of {name} is {list(value.shape)}, the parameter {shape}"


def _form(value: Any) -> tuple[list[int], str]:
    if not isinstance(value, Tensor):
        return [], type(value).__name__
    return list(value.shape), str(value.dtype).removeprefix("torch.")


def _said(form: Sequence[Any] | None) -> str:
    return "not there" if form is None else f"{form[1]} {form[0]}"


def digest(state: Any) -> str:
    """sha256 over every key, number and tensor of a nested state, in a fixed order.

    Its layout is left out, so that checkpoints from before it was kept have the same digest.
    """
    total = hashlib.sha256()
    if isinstance(state, dict):
        state = {key: value for key, value in state.items() if key != LAYOUT}
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
