"""YAML the way people mean it: YAML 1.2 scalars, unique keys, no aliases, one kind of error."""

import re
from typing import Any

import yaml

# A tag such as `!!bool maybe` makes PyYAML raise errors of other types.
_UNREADABLE = (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError)


def parse_yaml(text: str) -> Any:
    """Parse `text`.

    Raises:
        ValueError: it is not YAML, or uses a feature that is not allowed here; one line.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except _UNREADABLE as error:
        raise ValueError(" ".join(str(error).split())) from None


class _StrictLoader(yaml.SafeLoader):
    """YAML the way people mean it: `1e-3` is a number, keys are unique, aliases are refused."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            # A config needs no aliases, and nested ones expand without bound.
            raise yaml.constructor.ConstructorError(
                None, None, "aliases (*name) are not allowed", self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"keys are text, got {type(key).__name__} {str(key)[:60]!r}"
            elif key in seen:
                problem = f"key {key!r} stands twice"
            else:
                seen.add(key)
                continue
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        return super().construct_mapping(node, deep)


# PyYAML reads YAML 1.1, where `1e-3` is text, `012` is ten and `no` is false. These are the core
# scalars of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema).
_StrictLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"[-+]?[0-9]+$", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
    ("float", r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", list("-+.")),
):
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)
# Other kinds (`!!set`, `!!binary`, `!!timestamp`, …) have no place in a configuration.
_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")
_StrictLoader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _KINDS
}
_StrictLoader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node))
)


def write_yaml(tree: Any) -> str:
    """Write plain values as YAML, with keys in the given order."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
