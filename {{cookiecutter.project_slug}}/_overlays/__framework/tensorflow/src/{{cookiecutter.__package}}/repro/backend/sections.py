"""The sections of the configuration whose keys depend on the framework."""

from typing import Annotated, Literal

from pydantic import Field

from ..config.base import Section


class Determinism(Section):
    profile: Literal["fast"] = "fast"
    """The best instructions of this CPU; TensorFlow has no switch that makes all CPUs agree."""
    deterministic_algorithms: bool = True
    """Refuse operations that have no deterministic implementation."""
    matmul_precision: Literal["ieee", "tf32"] = "ieee"
    """float32 products: exact inputs, or TF32 on GPUs that have it."""
    num_threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads of an operation; another number gives other bits."""


class Distributed(Section):
    """No keys: a training is a single process."""
