"""`configs/schema.json`, which editors use to complete and validate configurations.

Generated from the project's `Config`; the sentence below a key becomes its description.
"""

import ast
import inspect
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from .base import Section
from .run_config import RunConfig

NAME = "schema.json"


def schema_text(config_class: type[RunConfig]) -> str:
    """The JSON Schema (2020-12) of a configuration, as the file's text."""
    tree = config_class.model_json_schema()
    tree = {"$schema": "https://json-schema.org/draft/2020-12/schema", **tree}
    for section in _sections(config_class):
        part = tree if section is config_class else tree["$defs"][section.__name__]
        for name, sentence in _sentences(section).items():
            if name in part["properties"]:
                part["properties"][name]["description"] = sentence
    return json.dumps(tree, indent=2, sort_keys=True) + "\n"


def write_schema(config_class: type[RunConfig], root: Path) -> Path:
    """Write the schema to `configs/schema.json` in the checkout at `root`."""
    path = root / "configs" / NAME
    path.write_text(schema_text(config_class), encoding="utf-8")
    return path


def _sections(section: type[Section]) -> list[type[Section]]:
    found = [section]
    for entry in section.model_fields.values():
        if isinstance(entry.annotation, type) and issubclass(entry.annotation, Section):
            found += _sections(entry.annotation)
    return found


def _sentences(section: type[Section]) -> dict[str, str]:
    """The docstring below each key of a section, including inherited keys."""
    said: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if not issubclass(base, Section):
            continue
        source = ast.parse(Path(inspect.getfile(sys.modules[base.__module__])).read_bytes())
        (body,) = [n.body for n in source.body if getattr(n, "name", "") == base.__name__]
        for key, below in pairwise(body):
            if isinstance(key, ast.AnnAssign) and _is_text(below):
                said[key.target.id] = " ".join(below.value.value.split())
    return said


def _is_text(node: Any) -> bool:
    value = getattr(node, "value", None)
    return isinstance(node, ast.Expr) and isinstance(getattr(value, "value", None), str)
