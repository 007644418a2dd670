"""Which of the caller's shell variables are removed, and which are recorded.

Whole families are listed, not single variables: libraries read more of them than they document,
and new releases add some.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from .backend import facts
from .files import SOURCE

CHOSEN = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_DYNAMIC"),
    *(*facts.VARIABLES, *facts.PORTABLE),
)
"""Variables of the families below that the configuration sets (`env.py`)."""

_FAMILIES = re.compile(
    # Threads, instruction sets, kernels and precision of what computes on a CPU …
    "(ATEN|BLIS|DNNL|GOMP|GOTO|KMP|LIBOMP|LOKY|MKL|NPY|NUMEXPR|NUMPY|NVPL|OMP|ONEDNN|OPENBLAS"
    "|SCIPY|SKLEARN|TBB|VECLIB|XNNPACK)_"
    # … and on a GPU; compilers of kernels; the frameworks themselves.
    "|(CUBLAS|CUBLASLT|CUDA|CUDNN|CUFFT|PYTORCH|TORCH|TORCHDYNAMO|TORCHINDUCTOR|TRITON)_"
    "|(TF|TF2|XLA|KERAS|TENSORFLOW)_"
    "|NVIDIA_TF32_OVERRIDE$|DISABLE_ADDMM_CUDA_LT$"
    # Not the bits but the look of curves and progress: settings meant for other programs.
    "|MPLBACKEND$|MATPLOTLIBRC$|TQDM_"
)
_KEPT = re.compile(
    # Which devices there are, where files are, what is reported: no kernel is chosen by these.
    "CUDA_(VISIBLE_DEVICES|DEVICE_ORDER|HOME|PATH|CACHE_.*|MPS_.*|LAUNCH_BLOCKING|MODULE_LOADING)$"
    "|TORCH_(HOME|EXTENSIONS_DIR|LOGS|LOGS_.*|SHOW_CPP_STACKTRACES|CPP_LOG_LEVEL|NCCL_.*)$"
    "|TORCH_DISTRIBUTED_.*|TRITON_(CACHE_DIR|HOME)$|PYTORCH_KERNEL_CACHE_PATH$"
    "|TORCHINDUCTOR_CACHE_DIR$"  # set by torch itself, from the user's name
    "|TF_CPP_.*|TF_FORCE_GPU_ALLOW_GROWTH$|TF_GPU_ALLOCATOR$|KERAS_HOME$"
    # Where memory comes from; the tests run with other allocators and non-zero memory.
    "|PYTORCH_(CUDA_)?ALLOC_CONF$"
)
_RECORDED = re.compile(
    f"{facts.RECORDED}|CUDA_LAUNCH_BLOCKING$|NCCL_|LD_PRELOAD$|LD_LIBRARY_PATH$"
    "|DYLD_INSERT_LIBRARIES$|DYLD_LIBRARY_PATH$|GLIBC_TUNABLES$|MALLOC_|PYTHONMALLOC$"
)
_SEARCHED = "PYTHONPATH"
_IMPORTS = (
    *("PYTHONHOME", "PYTHONPLATLIBDIR", "PYTHONUSERBASE", "PYTHONCASEOK", "PYTHONOPTIMIZE"),
    *("PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONSAFEPATH"),
)
"""Variables that change what Python imports or omits, or keep it from exiting."""


def is_foreign(name: str) -> bool:
    """Whether a variable would override the configured threads, kernels or precision."""
    return bool(_FAMILIES.match(name)) and not _KEPT.match(name)


def imports(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Variables that limit imports to the installed packages and this source.

    `None` means that a variable must be unset.
    """
    given = [part for part in environ.get(_SEARCHED, "").split(os.pathsep) if part]
    # An image finds the source this way, and `train.py` passes its own to child processes.
    ours = any(Path(part).resolve() == SOURCE for part in given)
    return {
        **dict.fromkeys(_IMPORTS),
        _SEARCHED: str(SOURCE) if ours else None,
        "PYTHONNOUSERSITE": "1",
    }


def recorded(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables the record must name if set: allocators, preloaded libraries, leftovers."""
    names = (n for n in environ if _RECORDED.match(n) or (is_foreign(n) and n not in CHOSEN))
    return {name: environ[name] for name in sorted(names)}


def flags() -> str | None:
    """Interpreter options that change what a program does: `-O` drops assertions."""
    return f"-{'O' * sys.flags.optimize}" if sys.flags.optimize else None
