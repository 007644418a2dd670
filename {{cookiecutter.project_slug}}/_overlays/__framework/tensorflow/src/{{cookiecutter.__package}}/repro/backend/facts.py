"""What the machinery has to know of TensorFlow before it loads it. Standard library only."""

import os
import re
from collections.abc import Mapping

NAME = "TensorFlow"
PACKAGES = ("tensorflow", "tensorflow_cpu", "keras")
"""Its packages, of which an environment has one or more."""
CHECKPOINT = ".safetensors"
"""The ending of a checkpoint's name."""
RANKS = False
"""Whether several processes can share a training."""
AUTOCAST = False
"""Whether `device.mixed_precision` can surround any training."""

PORTABLE: dict[str, str] = {}
"""No variables make TensorFlow compute alike on every CPU: its products depend on the size of the
first-level cache, and its `rsqrt` is the processor's approximation."""

SETTINGS: tuple[str, ...] = ()
"""Variables that `.env` may set although they choose kernels."""
MACHINE = ("l1d_cache",)
"""Entries of the recorded determinism in which two machines must agree to give the same bits."""

DETERMINISTIC = "tf.config.experimental.enable_op_determinism"
"""The call that makes it deterministic, which the doctor looks for."""
NEEDED_ARGUMENTS: dict[str, set[str]] = {}
"""What draws random numbers, and the arguments without which nobody knows from where."""
FASTEST = ("determinism.deterministic_algorithms=false",)
"""What one would set without a thought for bits, if only speed counted."""

OUT_OF_MEMORY = re.compile(
    "out of memory|allocate memory|OOM when allocating|ResourceExhausted|map segment|MemoryError"
)


def variables(environ: Mapping[str, str], num_threads: int) -> dict[str, str]:
    """What must be set before it is loaded."""
    return {
        "TF_DETERMINISTIC_OPS": "1",
        "TF_CUDNN_DETERMINISTIC": "1",
        "TF_NUM_INTRAOP_THREADS": str(num_threads),
        "TF_NUM_INTEROP_THREADS": "1",
        # Notices of every start; what fails is raised as an error of Python's all the same.
        "TF_CPP_MIN_LOG_LEVEL": environ.get("TF_CPP_MIN_LOG_LEVEL") or "3",
        "KERAS_BACKEND": "tensorflow",
        # A folder that cannot be: a keras.json in somebody's home would choose the precision.
        "KERAS_HOME": f"{os.devnull}/keras",
    }
