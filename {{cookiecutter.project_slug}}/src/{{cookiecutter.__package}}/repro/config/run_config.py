"""The keys that every run has, whatever its task."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator

from ..backend.sections import Determinism, Distributed
from .base import MAX_SEED, Inert, Paths, Record, Section, Tracking
from .load import load_config


def complete(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A recorded configuration with the sections that older versions of the template lack."""
    return {"distributed": Distributed().model_dump(mode="json"), **config}


class RunConfig(Section):
    """The keys that every run has; a project's `Config` adds its own sections."""

    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    """The one seed; every stream of random numbers is derived from it. 0 is a seed like others."""
    experiment_name: Annotated[str, Inert] = "baseline"
    """Name of the MLflow experiment and start of the run's name."""
    paths: Annotated[Paths, Inert] = Paths()
    """Folders; they may name environment variables."""
    tracking: Annotated[Tracking, Inert] = Tracking()
    """Who else is told of a run."""
    record: Record = Record()
    """Checkpoints."""
    determinism: Determinism = Determinism()
    """What makes libraries repeat themselves."""
    distributed: Distributed = Distributed()
    """How processes share a batch."""

    @classmethod
    def load(
        cls, path: str | Path, overrides: Iterable[str] = (), *, seed: int | None = None
    ) -> Self:
        """Read a YAML file, apply `section.key=value` overrides in order, then `seed`.

        Raises:
            ValueError: the file cannot be read as YAML, or a key or value is invalid.
        """
        return load_config(cls, path, overrides, seed=seed)

    @field_validator("experiment_name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", value):
            raise ValueError("must be letters, digits, '.', '_' and '-', at most 64")
        return value
