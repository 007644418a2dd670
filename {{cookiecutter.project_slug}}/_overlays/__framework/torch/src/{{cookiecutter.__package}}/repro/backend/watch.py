"""The torch side of watching a run: every key used to seed one of its generators."""

from collections.abc import Callable
from typing import Any

import torch

Note = Callable[[str, Any], None]
FRAMEWORK = ("torch",)
SEEDINGS = ("seed", "seed", "manual_seed")
"""The calls by which `set_seed` seeds Python, NumPy and the framework."""


def watch_generators(patch: Any, note: Note) -> None:
    """Call `note(name, key)` when a generator of torch is seeded; `patch` is a `MonkeyPatch`."""
    for name in ("manual_seed", "seed"):
        patch.setattr(torch, name, _heard(getattr(torch, name), name, note))

    class Generator(torch.Generator):
        def manual_seed(self, key: int) -> torch.Generator:
            note("Generator.manual_seed", key)
            return super().manual_seed(key)

    class Default:
        def __init__(self, generator: torch.Generator) -> None:
            self.generator = generator

        def manual_seed(self, key: int) -> torch.Generator:
            note("default_generator.manual_seed", key)
            return self.generator.manual_seed(key)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.generator, name)

    patch.setattr(torch, "Generator", Generator)
    patch.setattr(torch, "default_generator", Default(torch.default_generator))


def _heard(function: Callable[..., Any], name: str, note: Note) -> Callable[..., Any]:
    def heard(*arguments: Any, **named: Any) -> Any:
        note(name, arguments[0] if arguments else next(iter(named.values()), None))
        return function(*arguments, **named)

    return heard
