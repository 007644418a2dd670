"""The sections of the configuration whose keys depend on the framework."""

from typing import Annotated, Literal

from pydantic import Field

from ..config.base import Inert, Section


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
