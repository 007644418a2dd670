"""JSON in the style of `data/`: a value is on one line if it fits."""

import json
from typing import Any

WIDTH = 130


def dumps(value: Any, indent: int = 0) -> str:
    """`value` as text; what does not fit is split over lines, indented by two spaces."""
    flat = _flat(value)
    if not isinstance(value, (dict, list)) or (indent >= 6 and indent + len(flat) <= WIDTH):
        return flat
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        items = [f"{json.dumps(k)}: {dumps(v, indent + 2)}" for k, v in value.items()]
        brackets = "{}"
    else:
        items = [dumps(item, indent + 2) for item in value]
        brackets = "[]"
    if not items:
        return brackets
    body = ",\n".join(inner + item for item in items)
    return f"{brackets[0]}\n{body}\n{' ' * indent}{brackets[1]}"


def _flat(value: Any) -> str:
    if isinstance(value, dict) and value:
        return "{" + ", ".join(f"{json.dumps(k)}: {_flat(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
