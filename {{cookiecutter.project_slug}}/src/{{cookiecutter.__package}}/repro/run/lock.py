"""The lock of a run directory: a training holds it from its start to its end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Lock an existing run directory.

    Raises:
        ValueError: another process holds the lock.
    """
    if os.name == "nt":
        yield  # a directory cannot be locked there
        return
    import fcntl

    handle = os.open(run_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is training in {run_dir}; wait for it") from None
        yield
    finally:
        os.close(handle)
