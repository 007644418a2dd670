"""The base class of sections, and the sections that every configuration has.

A project's own `Config` inherits from `RunConfig` (`run_config.py`) and adds sections, which
inherit from `Section`. Both are pydantic models (https://docs.pydantic.dev): frozen, strict about
types, and closed to unknown keys. Values of `paths` and `tracking` may refer to environment
variables as `${NAME}` or `${NAME:-default}`; they stay unresolved in the record of a run, so that
no secret and no machine-specific path gets into it (`env.py` resolves them).
"""

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

MAX_SEED = 2**32 - 1
"""Largest seed that NumPy's global generator accepts; the others accept larger ones."""


class _InertMark:
    """The type of the mark behind `Inert`."""


Inert = _InertMark()
"""Marks a key whose value cannot change a bit of the result: `Annotated[int, Inert] = 0`."""


class Section(BaseModel):
    """Base of all sections; a docstring below a key says what it means."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    def replace(self, **changes: Any) -> Self:
        """A copy with some values replaced, which are validated like the originals."""
        return type(self)(**{**{name: getattr(self, name) for name in self.keys()}, **changes})

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """The names of the keys, in order."""
        return tuple(cls.model_fields)


class Paths(Section):
    data_dir: str = "${DATA_DIR:-data}"
    """Where downloads are kept."""
    output_dir: str = "${OUTPUT_DIR:-outputs}"
    """Where run directories are made."""


class Tracking(Section):
    mlflow_uri: str = "${MLFLOW_TRACKING_URI:-}"
    """MLflow server to report to; empty: none, the run directory is the record."""


class Record(Section):
    checkpoint_every: Annotated[int, Field(ge=1, le=10**9)] = 100
    """Optimizer steps between two checkpoints; one more is written at the end."""
    keep_checkpoints: Annotated[int, Field(ge=1, le=10**9)] = 3
    """Newest checkpoints that stay on disk."""


def inert_keys(config: type[Section], prefix: str = "") -> Iterator[str]:
    """Dotted names of the keys, or sections of keys, that are marked `Inert`."""
    for name, entry in config.model_fields.items():
        if any(isinstance(mark, _InertMark) for mark in entry.metadata):
            yield f"{prefix}{name}"
        elif isinstance(entry.annotation, type) and issubclass(entry.annotation, Section):
            yield from inert_keys(entry.annotation, f"{prefix}{name}.")


def is_inert(key: str, inert: tuple[str, ...]) -> bool:
    """Whether a dotted key is in `inert`, or belongs to a section that is."""
    return any(key == name or key.startswith(f"{name}.") for name in inert)
