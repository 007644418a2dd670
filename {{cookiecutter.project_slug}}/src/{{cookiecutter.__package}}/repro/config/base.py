"""The base class of sections, and the sections that every configuration has.

A project's own `Config` inherits from `RunConfig` (`run_config.py`) and adds sections, which
inherit from `Section`. Both are pydantic models (https://docs.pydantic.dev): frozen, strict about
types, and closed to unknown keys. Values of `paths` and `tracking` may refer to environment
variables as `${NAME}` or `${NAME:-default}`; they stay unresolved in the record of a run, so that
no secret and no machine-specific path gets into it (`env.py` resolves them).
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

MAX_SEED = 2**32 - 1
"""Largest seed that NumPy's global generator accepts; Python and torch accept larger ones."""


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


class Determinism(Section):
    profile: Literal["fast", "portable"] = "fast"
    """`fast`: the best instructions of this CPU. `portable`: AVX2 on every x86-64 CPU, so that
    processors of other makers and years give the same bits; needs AVX2, costs up to half the speed.
    """
    deterministic_algorithms: bool = True
    """Refuse operations that have no deterministic implementation."""
    cudnn_benchmark: bool = False
    """Let cuDNN time its kernels and take the fastest: another choice on another day."""
    matmul_precision: Literal["ieee", "tf32"] = "ieee"
    """float32 products: exact inputs, or TF32 on GPUs that have it."""
    num_threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads of torch and NumPy; another number gives other bits."""
    fill_uninitialized_memory: bool = False
    """Fill fresh tensors with NaN, so that reading one unwritten shows; costs up to 13 %."""


class Distributed(Section):
    gradients: Literal["invariant", "ordered"] = "invariant"
    """`invariant`: the same bits on any number of processes, up to `num_pieces` of them.
    `ordered`: each process computes its share of the batch in one piece; plain speed, and other
    bits for another number of processes.
    """
    num_pieces: Annotated[int, Field(ge=1, le=4096)] = 1
    """Equal pieces of every batch, computed one by one and added in a fixed order: another number
    gives other bits. The largest number of processes, for `invariant`.
    """
    backend: Annotated[Literal["auto", "gloo", "nccl"], Inert] = "auto"
    """How gradients travel; `auto` is NCCL where every process has a GPU of its own, else gloo."""


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
