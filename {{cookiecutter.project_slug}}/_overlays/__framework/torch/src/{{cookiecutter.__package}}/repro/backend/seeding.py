"""Every switch that makes torch deterministic, and the seeding of its generators."""

import os
import random
from typing import Any

import numpy as np
import torch

from ..random.streams import check_seed, derive
from ..shell import flags, recorded
from .facts import PORTABLE
from .sections import Determinism


def set_seed(seed: int, determinism: Determinism | None = None) -> None:
    """Seed Python, NumPy and torch (CPU and every GPU) and set the determinism switches.

    `PYTHONHASHSEED` cannot be set from here: it takes effect only at interpreter start, which
    the command line takes care of (`env.py`).

    Raises:
        ValueError: `seed` is not a whole number from 0 to `MAX_SEED`.
    """
    check_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # CPU and, lazily, every GPU
    set_determinism(determinism or Determinism())


def set_determinism(determinism: Determinism) -> None:
    """Set every switch of the `determinism` section; call before any CUDA work.

    Raises:
        ValueError: the profile is portable, and torch was loaded without its variables.
    """
    capped = all(os.environ.get(name) == value for name, value in PORTABLE.items())
    capability = torch.backends.cpu.get_cpu_capability()
    if determinism.profile == "portable" and not (capped and capability == "AVX2"):
        raise ValueError(
            "determinism.profile is portable, but torch was loaded without "
            f"{' '.join(f'{name}={value}' for name, value in PORTABLE.items())}; "
            "start with python train.py, or set them before Python"
        )
    # Needed before CUDA starts by torch < 2.10 for deterministic cuBLAS; harmless later.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(determinism.deterministic_algorithms)
    torch.utils.deterministic.fill_uninitialized_memory = determinism.fill_uninitialized_memory
    torch.backends.cudnn.benchmark = determinism.cudnn_benchmark
    torch.backends.cudnn.deterministic = determinism.deterministic_algorithms
    torch.set_num_threads(determinism.num_threads)
    if hasattr(torch.backends, "fp32_precision"):  # torch 2.9 and later
        torch.backends.fp32_precision = determinism.matmul_precision
    else:
        tf32 = determinism.matmul_precision == "tf32"
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32


def read_determinism() -> dict[str, Any]:
    """The actual value of every switch in this process, not the one that was requested."""
    newer = hasattr(torch.backends, "fp32_precision")
    names = ("PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    variables = {name: os.environ.get(name) for name in (*names, *PORTABLE)}
    variables |= recorded(os.environ)
    variables |= {"python_flags": flags()} if flags() else {}
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill_uninitialized_memory": torch.utils.deterministic.fill_uninitialized_memory,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        # After the newer switch is used, reading the older one raises.
        "matmul_precision": torch.backends.fp32_precision
        if newer
        else torch.get_float32_matmul_precision(),
        "num_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "environment": variables,
    }


def seed_stream(seed: int, *path: str | int) -> None:
    """Set torch's global generators to the start of the stream `path`, such as ("dropout", 7)."""
    key = derive(seed, *path)
    # Not `torch.manual_seed`: that formats a stack trace, 160 µs against 1 µs a call.
    torch.default_generator.manual_seed(key)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(key)


def seed_worker(worker_id: int) -> None:
    """Seed Python and NumPy in a loader process from the seed that torch gave it.

    Our own data sets draw from `SampleStreams` and do not need it. A transform that draws from a
    global generator does, and is then repeatable only with the same number of processes.
    """
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)
