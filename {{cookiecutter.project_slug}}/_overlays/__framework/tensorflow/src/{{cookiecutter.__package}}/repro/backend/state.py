"""State of any kind: saving it, checking that it fits, restoring it, and hashing its bits.

A checkpoint is one safetensors file: every array under a number, and where it belongs as JSON in
the file's metadata. No pickle.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

from .quiet import keras
from .seeding import register

LAYOUT = "layout"
"""The classes of the objects, so that a misfit can be named."""
STATE = "state: it is no Keras model or optimizer, and lacks state_dict and load_state_dict"
"""What an object must have to be saved, in words."""
CLOCK = {"step", "best", "logs", LAYOUT}
"""What a checkpoint holds besides the objects passed to `Run.start`."""
_ARRAY = "array"
"""Stands for an array in the JSON, with its number."""
_DTYPE = "dtype"


class _HasState(type):
    def __instancecheck__(cls, each: Any) -> bool:
        has_both = hasattr(each, "state_dict") and hasattr(each, "load_state_dict")
        return isinstance(each, (keras.Model, keras.optimizers.Optimizer)) or has_both


class Stateful(metaclass=_HasState):
    """Anything that can be saved and restored: Keras models and optimizers, and whatever has
    `state_dict` and `load_state_dict` of plain values and NumPy arrays."""


def check_ready(objects: Mapping[str, Any]) -> None:
    """Check, before the first step, that everything can be saved and will be restored.

    Raises:
        ValueError: a model or an optimizer is not built, two variables share a name, or a state
            holds what JSON does not.
    """
    for name, each in objects.items():
        if isinstance(each, keras.layers.Layer):
            register(each)  # whether or not it was placed
        if _variables(each) is not None and not each.built:
            raise ValueError(
                f"{name} ({type(each).__name__}) has no variables yet; build it before run.start, "
                "or a resumed run would have none to restore"
            )
        try:
            json.dumps(_apart(_state(each), {}))
        except (TypeError, ValueError) as error:
            raise ValueError(f"the state of {name} cannot be saved: {error}") from None


def capture(objects: Mapping[str, Any], **clock: Any) -> dict[str, Any]:
    """Everything needed to resume a run: its clock, and the state of each object by name; a copy,
    which training does not touch."""
    layout = {name: type(each).__name__ for name, each in objects.items()}
    return {**clock, LAYOUT: layout, **{name: _state(each) for name, each in objects.items()}}


def _state(each: Any) -> Any:
    variables = _variables(each)
    if variables is None:
        return _copied(each.state_dict())
    arrays = {variable.path: np.array(variable.numpy()) for variable in variables}
    if len(arrays) < len(variables):
        paths = [variable.path for variable in variables]
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(f"two variables are called {twice}; give every layer a name of its own")
    return arrays


def _variables(each: Any) -> list[keras.Variable] | None:
    if isinstance(each, keras.Model):
        return each.weights  # without the layers' streams, which are functions of the step
    if isinstance(each, keras.optimizers.Optimizer):
        return each.variables
    return None


def _copied(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _copied(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_copied(value) for value in node]
    return np.array(node) if hasattr(node, "__array__") else node


def restore(state: dict[str, Any], objects: Mapping[str, Any]) -> None:
    """Load a saved state into `objects`, and check that it arrived unchanged.

    Nothing is loaded unless every array matches by name, shape and dtype.

    Raises:
        ValueError: the state belongs to other objects, or the live state after loading differs
            from the saved one.
    """
    if misfit := next(_misfits(state, objects), None):
        raise ValueError(f"the checkpoint is of another model or optimizer: {misfit}")
    for name, each in objects.items():
        variables = _variables(each)
        if variables is None:
            each.load_state_dict(state[name])
        for variable in variables or ():
            variable.assign(state[name][variable.path])
    if digest({**state, **capture(objects)}) != digest(state):
        raise ValueError(f"the state of step {state['step']} did not survive loading unchanged")


def _misfits(state: dict[str, Any], objects: Mapping[str, Any]) -> Iterator[str]:
    saved, live = state.keys() - CLOCK, objects.keys()
    if saved != live:
        yield f"it holds {', '.join(sorted(saved))}; this run has {', '.join(sorted(live))}"
        return
    for name, each in objects.items():
        was, now = state[LAYOUT].get(name), type(each).__name__
        if was != now:
            yield f"the {name} was {was}, is {now}"
        variables = _variables(each)
        if variables is None:
            continue
        before = {path: _form(array) for path, array in state[name].items()}
        forms = {variable.path: _form(variable.numpy()) for variable in variables}
        for path in [*before, *(forms.keys() - before.keys())]:
            if before.get(path) != forms.get(path):
                yield f"{path} was {_said(before.get(path))}, is {_said(forms.get(path))}"


def _form(array: Any) -> tuple[str, list[int]]:
    return str(array.dtype), list(array.shape)


def _said(form: tuple[str, list[int]] | None) -> str:
    return "not there" if form is None else f"{form[0]} {form[1]}"


def to_bytes(state: dict[str, Any]) -> bytes:
    """The content of a checkpoint file: state and digest."""
    arrays: dict[str, np.ndarray] = {}
    plain = json.dumps({"digest": digest(state), "state": _apart(state, arrays)})
    # One entry: safetensors writes several in an order that changes from process to process.
    return to_safetensors(arrays, {"checkpoint": plain})


def _apart(node: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The tree with a number in place of each array."""
    if isinstance(node, np.ndarray):
        name = str(len(arrays))
        # Not `ascontiguousarray`, which gives a scalar an axis.
        array = np.array(node, order="C")
        if array.dtype.kind in "biufc":
            arrays[name] = array
            return {_ARRAY: name}
        # bfloat16 and the like, of which NumPy knows the bytes only.
        arrays[name] = array.view(f"u{array.dtype.itemsize}")
        return {_ARRAY: name, _DTYPE: str(array.dtype)}
    if isinstance(node, dict):
        if not all(isinstance(key, str) and key != _ARRAY for key in node):
            raise ValueError(f"the keys of a state must be texts, got {sorted(map(str, node))[:3]}")
        return {key: _apart(value, arrays) for key, value in node.items()}
    if isinstance(node, list):
        return [_apart(value, arrays) for value in node]
    return node


def _together(node: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(node, dict):
        if _ARRAY in node:
            array = arrays[node[_ARRAY]]
            return array.view(getattr(ml_dtypes, node[_DTYPE])) if _DTYPE in node else array
        return {key: _together(value, arrays) for key, value in node.items()}
    if isinstance(node, list):
        return [_together(value, arrays) for value in node]
    return node


def from_file(path: Path) -> dict[str, Any]:
    """Read a checkpoint and check it against its digest.

    Raises:
        ValueError: the file is truncated, modified, or not a checkpoint of this project.
    """
    try:
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        saved = json.loads(header["__metadata__"]["checkpoint"])
        state, expected = _together(saved["state"], from_safetensors(content)), saved["digest"]
        missing = {"step", "best", "logs"} - set(state)
        found = digest(state)
    except Exception as error:  # a damaged file fails in many ways, all with the same meaning
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} is not a whole checkpoint: {reason}") from None
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}: another version wrote it")
    if found != expected:
        raise ValueError(f"{path} was changed after it was written: its digest differs")
    return state


def digest(state: Any) -> str:
    """sha256 over every key, number and array of a nested state, in a fixed order; without the
    layout."""
    total = hashlib.sha256()
    if isinstance(state, dict):
        state = {key: value for key, value in state.items() if key != LAYOUT}
    _feed(total, state)
    return total.hexdigest()


def weights_file(objects: Mapping[str, Any]) -> bytes:
    """Weights as safetensors: of the object `model`, or of all models, prefixed by their names."""
    model = objects.get("model")
    models = {"": model} if isinstance(model, keras.Model) else objects
    weights = {
        f"{title}.{path}".lstrip("."): array
        for title, each in models.items()
        if isinstance(each, keras.Model)
        for path, array in _state(each).items()
    }
    return to_safetensors(weights)


def _feed(total: Any, node: Any) -> None:
    if hasattr(node, "__array__") and not isinstance(node, np.generic):
        array = np.ascontiguousarray(node)
        total.update(f"array {array.dtype} {np.shape(node)}".encode())
        total.update(array.tobytes())
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
