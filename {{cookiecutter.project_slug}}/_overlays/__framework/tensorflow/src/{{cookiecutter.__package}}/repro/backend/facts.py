"""What the machinery has to know of TensorFlow before it loads it. Standard library only."""

import os
import re
from collections.abc import Mapping
from typing import Any

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

KERAS = {
    "KERAS_BACKEND": "tensorflow",
    # A folder that cannot be: a keras.json in somebody's home would choose the precision.
    "KERAS_HOME": f"{os.devnull}/keras",
}
VARIABLES = (
    *("TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC", "TF_CPP_MIN_LOG_LEVEL", *KERAS),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)
"""What `variables` sets, besides what every framework needs."""
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

KNOWN_CAUSES = (
    "an operation without a deterministic implementation, or one in a library other than"
    " TensorFlow",
    "numbers drawn by keras.random or tf.random.normal: their state is in no checkpoint",
)
"""Why runs with identical records differ, which no manifest sees."""
RECORDED = "TF_GPU_ALLOCATOR$|TF_FORCE_GPU_ALLOW_GROWTH$"
"""Names of variables that the record names if they are set."""
WAITS_FOR = "look at the disk"
"""What to do about a batch that does not come."""
OUT_OF_MEMORY = re.compile(
    "out of memory|allocate memory|OOM when allocating|ResourceExhausted|map segment|MemoryError"
)


def variables(environ: Mapping[str, str], determinism: Any) -> dict[str, str]:
    """What must be set before it is loaded, by the section `determinism` of a configuration."""
    # The variable does what the call does, and could not be taken back.
    ops = ("TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC")
    return {
        **(dict.fromkeys(ops, "1") if determinism.deterministic_algorithms else {}),
        "TF_NUM_INTRAOP_THREADS": str(determinism.num_threads),
        "TF_NUM_INTEROP_THREADS": "1",
        # Notices of every start; what fails is raised as an error of Python's all the same.
        "TF_CPP_MIN_LOG_LEVEL": environ.get("TF_CPP_MIN_LOG_LEVEL") or "3",
        **KERAS,
    }
