"""Configurations from files, command lines and records; every mistake is one line with its key."""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from .base import Section
from .yaml import parse_yaml, write_yaml

C = TypeVar("C", bound=Section)

_MOVED = ("checkpoint_every", "keep_checkpoints")
"""Keys that were in `training` before version 0.3.0 of the template, and are in `record` now."""
_MAX_SHOWN = 60


def load_config(
    cls: type[C], path: str | Path, overrides: Iterable[str] = (), *, seed: int | None = None
) -> C:
    """Read a YAML file, apply `section.key=value` overrides in order, then `seed`.

    Raises:
        ValueError: the file cannot be read as YAML, or a key or value is invalid.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():
            # The program may restart itself, and a pipe cannot be read twice.
            raise ValueError(f"cannot read config {path}: not a regular file")
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot read config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"config {path} is not UTF-8 text") from None
    try:
        tree = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"config {path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"config {path} must be a mapping of keys, got {_kind(tree)}")
    for override in overrides:
        _apply(tree, override)
    if seed is not None:
        tree["seed"] = seed
    return config_from_dict(cls, tree)


def config_from_dict(cls: type[C], tree: Mapping[str, Any]) -> C:
    """Build a configuration from nested mappings of YAML or JSON values.

    Raises:
        ValueError: a key is unknown or missing, or a value has the wrong type or is out of range.
    """
    try:
        # Via JSON, whose only conversions are from lists to tuples and from text to paths.
        return cls.model_validate_json(json.dumps(_moved(cls, tree)))
    except ValidationError as error:
        raise ValueError(_one_line(cls, error)) from None
    except (TypeError, RecursionError) as error:
        raise ValueError(f"the configuration holds what no YAML does: {error}") from None


def as_config(cls: type[C], config: C | Mapping[str, Any] | str | Path) -> C:
    """Turn a configuration, nested mappings or the path of a file into a configuration."""
    if isinstance(config, cls):
        return config
    if isinstance(config, Mapping):
        return config_from_dict(cls, config)
    return load_config(cls, config)


def to_dict(config: Section) -> dict[str, Any]:
    """The configuration as plain nested dictionaries, every default filled in."""
    return config.model_dump(mode="json")


def to_yaml(tree: Mapping[str, Any]) -> str:
    """A configuration's dictionary as YAML that `load_config` can read."""
    return write_yaml(tree)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def config_sha256(tree: Mapping[str, Any]) -> str:
    """Digest of the resolved configuration, as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _moved(cls: type[Section], tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Move keys of older configurations to their current place."""
    training = tree.get("training") if isinstance(tree, Mapping) else None
    if not isinstance(training, Mapping) or "training" not in cls.model_fields:
        return tree
    known = getattr(cls.model_fields["training"].annotation, "model_fields", {})
    old = {key: training[key] for key in _MOVED if key in training and key not in known}
    record = tree.get("record", {})
    if not old or not isinstance(record, Mapping):
        return tree
    rest = {key: value for key, value in training.items() if key not in old}
    return {**tree, "training": rest, "record": {**old, **record}}


def _one_line(cls: type[Section], error: ValidationError) -> str:
    """The first mistake in one line: which key, what is allowed, what was given."""
    first = error.errors(include_url=False)[0]
    where, kind, given = first["loc"], first["type"], first["input"]
    name, context = ".".join(map(str, where)), first.get("ctx") or {}
    if kind == "extra_forbidden":
        return f"unknown key {name!r}; {_nearest(cls, where)}"
    if kind == "missing":
        return f"missing key {name!r}"
    if kind == "json_invalid":
        return f"the configuration holds text that is not Unicode: {context['error']}"
    said = _WORDS.get(kind) or _bounds(cls, where, kind, context)
    if kind == "literal_error":
        said = f"must be one of {', '.join(map(str, _choices(cls, where, context)))}; got {given!r}"
        return f"{name} {said}"[:200]
    if kind == "finite_number":
        return f"{name} must be a finite number, got {str(given)[:_MAX_SHOWN]}"
    if kind in ("value_error", "assertion_error"):
        reason = " ".join(first["msg"].split(", ", 1)[1].split())
        return f"{name} {reason}, got {_shown(given)}".strip()
    if said is None:
        said = re.sub(r"^[A-Z][\w ]*? should ", "must ", " ".join(first["msg"].split()))
    return f"{name or 'the configuration'} {said}, got {_kind(given, kind)}"


_WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "model_type": "must be a section of keys",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of keys",
}


def _field(cls: type[Section], where: tuple[Any, ...]) -> Any:
    """The field at a location in the configuration, or the one whose value contains it."""
    entry: Any = None
    model: Any = cls
    for part in where:
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            break
        entry, model = fields[part], fields[part].annotation
    return entry


def _bounds(
    cls: type[Section], where: tuple[Any, ...], kind: str, context: Mapping[str, Any]
) -> str | None:
    if kind not in _LIMITS.values():
        return None
    marks = getattr(_field(cls, where), "metadata", [])
    found = [*_limits(marks)] or [f"{_SAID[k]} {context[k]}" for k in _SAID if k in context]
    return f"must be {' and '.join(found)}"


_SAID = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_LIMITS = {
    "ge": "greater_than_equal",
    "gt": "greater_than",
    "le": "less_than_equal",
    "lt": "less_than",
}


def _limits(marks: list[Any]) -> Iterator[str]:
    for name, words in _SAID.items():
        for mark in marks:
            if (bound := getattr(mark, name, None)) is not None:
                yield f"{words} {bound}"


def _choices(
    cls: type[Section], where: tuple[Any, ...], context: Mapping[str, Any]
) -> tuple[Any, ...]:
    choices = getattr(getattr(_field(cls, where), "annotation", None), "__args__", None)
    return choices or (context["expected"],)


def _nearest(cls: type[Section], where: tuple[Any, ...]) -> str:
    model: Any = cls
    for part in where[:-1]:
        model = model.model_fields[part].annotation if part in model.model_fields else model
    known = list(getattr(model, "model_fields", {}))
    nearest = difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0.5)
    path = "".join(f"{part}." for part in where[:-1])
    return f"did you mean {path + nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"


def _apply(tree: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ValueError(f"an override looks like section.key=value, got {override!r}")
    *sections, key = dotted.split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise ValueError(f"{dotted!r}: {section!r} is a value, not a section")
    try:
        # A word of a shell has no comments; text with a `#` would be cut off.
        plain = not text or (" #" in text and text[0] not in "'\"[{")
        node[key] = text if plain else parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"{dotted!r}: {text[:60]!r} is not a YAML value: {error}") from None


def _kind(value: Any, error: str = "") -> str:
    if error in _LIMITS.values():
        return _shown(value)
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a section of keys"
    return f"{type(value).__name__} {str(value)[:_MAX_SHOWN]!r}"


def _shown(value: Any) -> str:
    try:
        return repr(value)[:_MAX_SHOWN]
    except ValueError:  # a whole number with more digits than Python will print
        return "a number of thousands of digits"
