"""TensorFlow and Keras, loaded without the notices that TensorFlow prints before its own switch for
them takes effect: one-line errors would stand among them."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

NOTICES = re.compile(
    r"oneDNN custom operations are on|cpu_feature_guard|To enable the following instructions"
    r"|Unable to register cu|computation_placer|Attempting to register factory"
    r"|could not find cuda drivers|Could not find cuda drivers|TF-TRT Warning"
    r"|All log messages before absl::InitializeLog|cudart_stub|failed call to cuInit"
    r"|cuda_diagnostics|CUDA_ERROR_NO_DEVICE"
)


@contextmanager
def _without_notices() -> Iterator[None]:
    """Collect what is written to stderr in the block; print it afterwards without the notices."""
    sys.stderr.flush()
    kept = os.dup(2)
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


with _without_notices():
    import keras
    import tensorflow as tf

    tf.config.list_physical_devices("GPU")  # it says at length that there is none

__all__ = ["keras", "tf"]
