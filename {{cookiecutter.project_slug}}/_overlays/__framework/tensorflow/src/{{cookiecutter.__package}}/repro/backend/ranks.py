"""The processes that train together: with TensorFlow, always a single one."""

import os

from ..launched import has_others
from .alone import ONE_PROCESS, OneProcess


def is_everybodys(error: BaseException) -> bool:
    """Whether every rank has got this error, so that all go the same way."""
    return True


def connect() -> OneProcess:
    """The one process.

    Raises:
        ValueError: torchrun started several.
    """
    if has_others():
        number = os.environ.get("WORLD_SIZE")
        raise ValueError(
            f"torchrun started {number} processes, and a TensorFlow project trains in one; start "
            "train.py without it"
        )
    return ONE_PROCESS
