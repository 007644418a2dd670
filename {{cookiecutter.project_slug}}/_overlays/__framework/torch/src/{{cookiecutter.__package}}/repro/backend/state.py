"""State of any kind: saving it, checking that it fits, restoring it, and hashing its bits."""

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

Layout = dict[str, Any]
LAYOUT = "layout"
"""Identifies the parameters in an optimizer's state, which only knows their positions."""
STATE = "state_dict and load_state_dict"
"""What an object must have to be saved, in words."""
CLOCK = {"step", "best", "logs", LAYOUT}
"""What a checkpoint holds besides the objects passed to `Run.start`."""


@runtime_checkable
class Stateful(Protocol):
    """Anything that can be saved and restored: modules, optimizers, scalers, averages."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def check_ready(objects: Mapping[str, Stateful]) -> None:
    """Whatever has a state can be saved."""


def capture(objects: Mapping[str, Stateful], **clock: Any) -> dict[str, Any]:
    """Everything needed to resume a run: its clock, and the state of each object by name; a copy in
    CPU memory, which training does not touch."""
    seen: dict[Any, Tensor] = {}
    states = {name: _copied(each.state_dict(), seen) for name, each in objects.items()}
    return {**clock, LAYOUT: layout_of(objects), **states}


def _copied(node: Any, seen: dict[Any, Tensor]) -> Any:
    if isinstance(node, Tensor):
        # Tied weights are one tensor under several names; it is saved once.
        place = (node.data_ptr(), node.dtype, node.shape, node.stride(), node.device)
        if place not in seen or not node.numel():
            tensor = node.detach()
            seen[place] = tensor.clone() if tensor.device.type == "cpu" else tensor.cpu()
        return seen[place]
    if isinstance(node, dict):
        copied = copy(node)  # with the versions of its modules, which torch keeps in an attribute
        copied.update((key, _copied(value, seen)) for key, value in node.items())
        return copied
    if isinstance(node, (list, tuple)) and not hasattr(node, "_fields"):
        return type(node)(_copied(value, seen) for value in node)
    return node


def restore(state: dict[str, Any], objects: Mapping[str, Stateful]) -> None:
    """Load a saved state into `objects`, and check that it arrived unchanged.

    Nothing is loaded unless every tensor matches by name, shape and dtype.

    Raises:
        ValueError: the state belongs to other objects, or the live state after loading differs
            from the saved one.
    """
    if misfit := next(_misfits(state, objects), None):
        raise ValueError(f"the checkpoint is of another model or optimizer: {misfit}")
    try:
        for name, each in objects.items():
            each.load_state_dict(state[name])
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the checkpoint is of another model or optimizer: {reason}") from None
    live = {**state, **{name: each.state_dict() for name, each in objects.items()}}
    if digest(live) != digest(state):
        raise ValueError(f"the state of step {state['step']} did not survive loading unchanged")


def layout_of(objects: Mapping[str, Stateful]) -> Layout:
    """For each optimizer: its class, and name, shape and dtype of each parameter, by group."""
    modules = {name: each for name, each in objects.items() if isinstance(each, nn.Module)}
    names = {
        id(parameter): name if title == "model" else f"{title}.{name}"
        for title, module in reversed(modules.items())
        for name, parameter in module.named_parameters()
    }
    return {
        title: {
            "optimizer": type(each).__name__,
            "groups": [
                [(names.get(id(p), "?"), *_form(p)) for p in group["params"]]
                for group in each.param_groups
            ],
        }
        for title, each in objects.items()
        if isinstance(each, torch.optim.Optimizer)
    }


def _misfits(state: dict[str, Any], objects: Mapping[str, Stateful]) -> Iterator[str]:
    saved, live = state.keys() - CLOCK, objects.keys()
    if saved != live:
        yield f"it holds {', '.join(sorted(saved))}; this run has {', '.join(sorted(live))}"
        return
    layouts = state.get(LAYOUT) or {}
    if "groups" in layouts:  # older format, with a single optimizer
        layouts = {"optimizer": layouts}
    for name, each in objects.items():
        if isinstance(each, nn.Module):
            yield from _module_misfits("" if name == "model" else name, state[name], each)
        elif not isinstance(each, torch.optim.Optimizer):
            yield from _tree_misfits(name, state[name], each.state_dict())
    for name, layout in layout_of(objects).items():
        yield from _optimizer_misfits(name, state[name], layouts.get(name), layout)


def _module_misfits(title: str, saved: dict[str, Any], module: nn.Module) -> Iterator[str]:
    before, now = (
        {name: _form(tensor) for name, tensor in each.items()}
        for each in (saved, module.state_dict())
    )
    for name in [*before, *(now.keys() - before.keys())]:
        if before.get(name) != now.get(name):
            full = f"{title}.{name}".lstrip(".")
            yield f"{full} was {_said(before.get(name))}, is {_said(now.get(name))}"


def _tree_misfits(path: str, saved: Any, live: Any) -> Iterator[str]:
    """Tensors at the same place in any other state that differ in shape or dtype."""
    if isinstance(saved, Tensor) and isinstance(live, Tensor):
        if _form(saved) != _form(live):
            yield f"{path} was {_said(_form(saved))}, is {_said(_form(live))}"
    elif isinstance(saved, dict) and isinstance(live, dict):
        for key in saved.keys() & live.keys():
            yield from _tree_misfits(f"{path}.{key}", saved[key], live[key])


def _optimizer_misfits(
    title: str, saved: dict[str, Any], layout: Layout | None, live: Layout
) -> Iterator[str]:
    if layout and layout["optimizer"] != live["optimizer"]:
        yield f"the {title} was {layout['optimizer']}, is {live['optimizer']}"
    now = live["groups"]
    groups = [group["params"] for group in saved["param_groups"]]
    if [*map(len, groups)] != [*map(len, now)]:
        counts = (" + ".join(str(len(group)) for group in each) for each in (groups, now))
        yield "the {} had {} parameters, has {}".format(title, *counts)
        return
    if layout:
        pairs = zip(chain(*layout["groups"]), chain(*now), strict=True)
        for (name, *form), (here, *live_form) in pairs:
            if (name, form) != (here, live_form):
                was, now_is = f"{name} {_said(form)}", f"{here} {_said(live_form)}"
                yield f"the {title} had {was} where it has {now_is} now"
        return
    # A checkpoint of an older version: the optimizers' moments have the shape of their parameter.
    for position, (name, shape, _) in zip(chain(*groups), chain(*now), strict=True):
        for key, value in saved["state"].get(position, {}).items():
            if isinstance(value, Tensor) and value.dim() and list(value.shape) != shape:
                yield f"{key} of {name} is {list(value.shape)}, the parameter {shape}"


def _form(value: Any) -> tuple[list[int], str]:
    if not isinstance(value, Tensor):
        return [], type(value).__name__
    return list(value.shape), str(value.dtype).removeprefix("torch.")


def _said(form: Sequence[Any] | None) -> str:
    return "not there" if form is None else f"{form[1]} {form[0]}"


def to_bytes(state: dict[str, Any]) -> bytes:
    """The content of a checkpoint file: state and digest, loadable with `weights_only=True`."""
    buffer = BytesIO()
    torch.save({"digest": digest(state), "state": state}, buffer)
    return buffer.getvalue()


def from_file(path: Path) -> dict[str, Any]:
    """Read a checkpoint into CPU memory and check it against its digest.

    Raises:
        ValueError: the file is truncated, modified, or not a checkpoint of this project.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about whatever a damaged file contains
            content = torch.load(path, map_location="cpu", weights_only=True)
        state, expected = content["state"], content["digest"]
        missing = {"step", "best", "logs"} - set(state)
        found = digest(state)
    except Exception as error:  # a damaged archive fails in many ways, all with the same meaning
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} is not a whole checkpoint: {reason}") from None
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}: another version wrote it")
    if found != expected:
        raise ValueError(f"{path} was changed after it was written: its digest differs")
    return state


def digest(state: Any) -> str:
    """sha256 over every key, number and tensor of a nested state, in a fixed order.

    The layout is left out, so that digests match those of checkpoints written without one.
    """
    total = hashlib.sha256()
    if isinstance(state, dict):
        state = {key: value for key, value in state.items() if key != LAYOUT}
    _feed(total, state)
    return total.hexdigest()


def weights_file(objects: Mapping[str, Any]) -> bytes:
    """Weights as safetensors: of the object `model`, or of all modules, prefixed by their names."""
    model = objects.get("model")
    modules = {"": model} if isinstance(model, nn.Module) else objects
    weights = {
        f"{title}.{name}".lstrip("."): tensor.detach().cpu().contiguous().clone()
        for title, module in modules.items()
        if isinstance(module, nn.Module)
        for name, tensor in module.state_dict().items()
    }
    return to_safetensors(weights)


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
