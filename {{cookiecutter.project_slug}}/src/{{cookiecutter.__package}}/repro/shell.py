"""The caller's shell is no part of a run: which of its variables go, and which are recorded.

Whole families are named, not single variables: a library reads more of them than it documents, and
a new release adds some.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from .files import SOURCE

PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # MKL chooses its code by the CPU's maker as well; only this value is the same on all of them.
    "MKL_CBWR": "COMPATIBLE",
}
"""What makes torch, oneDNN and MKL take the same instructions on every CPU that has AVX2."""

CHOSEN = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_DYNAMIC", "MKL_DYNAMIC"),
    *("CUBLAS_WORKSPACE_CONFIG", *PORTABLE),
)
"""Variables of the families below that the configuration chooses (`env.py`)."""

_FAMILIES = re.compile(
    # Threads, instruction sets, kernels and precision of what computes on a CPU …
    "(ATEN|BLIS|DNNL|GOMP|GOTO|KMP|LIBOMP|LOKY|MKL|NPY|NUMEXPR|NUMPY|NVPL|OMP|ONEDNN|OPENBLAS"
    "|SCIPY|SKLEARN|TBB|VECLIB|XNNPACK)_"
    # … and on a GPU; compilers of kernels; torch itself.
    "|(CUBLAS|CUBLASLT|CUDA|CUDNN|CUFFT|PYTORCH|TORCH|TORCHDYNAMO|TORCHINDUCTOR|TRITON)_"
    "|NVIDIA_TF32_OVERRIDE$|DISABLE_ADDMM_CUDA_LT$"
    # Not bits, but how curves and progress look: other people's settings for other programs.
    "|MPLBACKEND$|MATPLOTLIBRC$|TQDM_"
)
_KEPT = re.compile(
    # Which devices there are, where files are, what is reported: no kernel is chosen by these.
    "CUDA_(VISIBLE_DEVICES|DEVICE_ORDER|HOME|PATH|CACHE_.*|MPS_.*|LAUNCH_BLOCKING|MODULE_LOADING)$"
    "|TORCH_(HOME|EXTENSIONS_DIR|LOGS|LOGS_.*|SHOW_CPP_STACKTRACES|CPP_LOG_LEVEL|NCCL_.*)$"
    "|TORCH_DISTRIBUTED_.*|TRITON_(CACHE_DIR|HOME)$|PYTORCH_KERNEL_CACHE_PATH$"
    "|TORCHINDUCTOR_CACHE_DIR$"  # torch sets it itself, by the user's name
    # Where memory comes from; the tests run with other allocators and memory that is not zero.
    "|PYTORCH_(CUDA_)?ALLOC_CONF$"
)
_RECORDED = re.compile(
    "PYTORCH_(CUDA_)?ALLOC_CONF$|CUDA_LAUNCH_BLOCKING$|NCCL_|LD_PRELOAD$|LD_LIBRARY_PATH$"
    "|DYLD_INSERT_LIBRARIES$|DYLD_LIBRARY_PATH$|GLIBC_TUNABLES$|MALLOC_|PYTHONMALLOC$"
)
_SEARCHED = "PYTHONPATH"
_IMPORTS = (
    *("PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONUSERBASE", "PYTHONCASEOK", "PYTHONOPTIMIZE"),
    *("PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONSAFEPATH"),
)
"""Variables that change what Python imports or drops, or keep it from ending."""


def is_foreign(name: str) -> bool:
    """Whether a variable would choose threads, kernels or precision behind the configuration."""
    return bool(_FAMILIES.match(name)) and not _KEPT.match(name)


def imports(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Variables under which nothing is imported but what is installed, and this source.

    `None` stands for a variable that must not be set.
    """
    given = [part for part in environ.get(_SEARCHED, "").split(os.pathsep) if part]
    # In an image this is how the source is found, and `train.py` hands its own on to its children.
    ours = any(Path(part).resolve() == SOURCE for part in given)
    return {
        **dict.fromkeys(_IMPORTS),
        _SEARCHED: str(SOURCE) if ours else None,
        "PYTHONNOUSERSITE": "1",
    }


def recorded(environ: Mapping[str, str]) -> dict[str, str]:
    """What a record names because it is set: allocators, preloaded libraries, what slipped in."""
    names = (n for n in environ if _RECORDED.match(n) or (is_foreign(n) and n not in CHOSEN))
    return {name: environ[name] for name in sorted(names)}


def flags() -> str | None:
    """Options of the interpreter that change what a program does: `-O` drops assertions."""
    return f"-{'O' * sys.flags.optimize}" if sys.flags.optimize else None
