"""What the machinery has to know of PyTorch before it loads it. Standard library only."""

import re
from collections.abc import Mapping
from typing import Any

NAME = "PyTorch"
PACKAGES = ("torch",)
"""Its packages, of which an environment has one or more."""
CHECKPOINT = ".pt"
"""The ending of a checkpoint's name."""
RANKS = True
"""Whether several processes can share a training."""
AUTOCAST = True
"""Whether `device.mixed_precision` can surround any training."""

PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # MKL also chooses its code by CPU vendor; only this value is the same on all of them.
    "MKL_CBWR": "COMPATIBLE",
}
"""Makes torch, oneDNN and MKL use the same instructions on every CPU that has AVX2."""

VARIABLES = ("CUBLAS_WORKSPACE_CONFIG", "MKL_NUM_THREADS", "MKL_DYNAMIC")
"""What `variables` sets, besides what every framework needs."""
SETTINGS = ("CUBLAS_WORKSPACE_CONFIG",)
"""Variables that `.env` may set although they choose kernels."""
MACHINE = ("cpu_capability",)
"""Entries of the recorded determinism in which two machines must agree to give the same bits."""

DETERMINISTIC = "torch.use_deterministic_algorithms"
"""The call that makes it deterministic, which the doctor looks for."""
NEEDED_ARGUMENTS = {"DataLoader": {"generator", "worker_init_fn"}}
"""What draws random numbers, and the arguments without which nobody knows from where."""
FASTEST = ("determinism.deterministic_algorithms=false", "determinism.cudnn_benchmark=true")
"""What one would set without a thought for bits, if only speed counted."""

KNOWN_CAUSES = (
    "an operation without a deterministic implementation, or one in a library other than PyTorch",
    "memory that was read before it was written: determinism.fill_uninitialized_memory shows it",
)
"""Why runs with identical records differ, which no manifest sees."""
RECORDED = "PYTORCH_(CUDA_)?ALLOC_CONF$"
"""Names of variables that the record names if they are set."""
WAITS_FOR = "look at /dev/shm and the disk"
"""What to do about a batch that does not come."""
OUT_OF_MEMORY = re.compile("out of memory|allocate memory|map segment|MemoryError")


def variables(environ: Mapping[str, str], determinism: Any) -> dict[str, str]:
    """What must be set before it is loaded, by the section `determinism` of a configuration."""
    return {
        # Required by torch before 2.10 for deterministic matrix products on CUDA, harmless later.
        "CUBLAS_WORKSPACE_CONFIG": environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        "MKL_NUM_THREADS": str(determinism.num_threads),
        "MKL_DYNAMIC": "FALSE",
    }
