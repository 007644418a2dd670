"""The TensorFlow side of watching a run: every key used to seed one of its generators."""

from collections.abc import Callable
from typing import Any

from . import seeding
from .quiet import tf

Note = Callable[[str, Any], None]
FRAMEWORK = ("tensorflow", "keras")
SEEDINGS = ("seed", "seed", "set_seed")
"""The calls by which `set_seed` seeds Python, NumPy and the framework."""


def watch_generators(patch: Any, note: Note) -> None:
    """Call `note(name, key)` when a generator is seeded; `patch` is a `MonkeyPatch`."""
    set_seed, start_layer = tf.random.set_seed, seeding.start_layer

    def heard_seed(key: Any) -> None:
        note("set_seed", key)
        set_seed(key)

    def heard_layer(state: Any, key: int) -> None:
        note("start_layer", key)
        start_layer(state, key)

    patch.setattr(tf.random, "set_seed", heard_seed)
    patch.setattr(seeding, "start_layer", heard_layer)
