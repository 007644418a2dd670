"""TensorFlow and Keras, loaded without the notices that TensorFlow prints before its own switch for
them takes effect: one-line errors would stand among them."""

import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from ..env import read_cpu
from .facts import KERAS

NOTICES = re.compile(
    r"oneDNN custom operations are on|is optimized to use available CPU instructions"
    r"|To enable the following instructions"
    r"|Unable to register cu|computation_placer|Attempting to register factory"
    r"|could not find cuda drivers|Could not find cuda drivers|TF-TRT Warning"
    r"|All log messages before absl::InitializeLog|cudart_stub|failed call to cuInit"
    r"|cuda_diagnostics|CUDA_ERROR_NO_DEVICE"
)


@contextmanager
def _without_notices() -> Iterator[None]:
    """Collect what is written to stderr in the block; print it afterwards without the notices."""
    try:
        kept = os.dup(2)
    except OSError:  # stderr is closed
        kept = None
    if kept is None or sys.stderr is None:
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines = file.read().decode(errors="replace").splitlines(keepends=True)
            sys.stderr.write("".join(line for line in lines if not NOTICES.search(line)))


if platform.machine() == "x86_64" and (flags := read_cpu()[1]) and "avx" not in flags:
    # TensorFlow would end the process without a word of Python's.
    raise ValueError(f"TensorFlow needs a CPU with AVX, and this is {read_cpu()[0]}")
os.environ.update(KERAS)  # for whoever does not come by the command line
with _without_notices():
    import keras
    import tensorflow as tf

    tf.config.list_physical_devices("GPU")  # it says at length that there is none

__all__ = ["keras", "tf"]
