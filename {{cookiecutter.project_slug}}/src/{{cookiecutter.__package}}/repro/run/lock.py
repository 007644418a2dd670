"""The lock of a run directory: a training holds it from its start to its end."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 0.5
"""Seconds in which whoever only looks has let go of the lock."""
_handles: set[int] = set()
"""Locks that this process holds or asks for."""


def _drop_in_child() -> None:
    # A forked loader process would hold the lock with its parent, seconds longer if that is killed.
    for handle in _handles:
        with suppress(OSError):
            os.close(handle)
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_in_child)


@contextmanager
def locked(run_dir: Path, *, only_look: bool = False) -> Iterator[None]:
    """Lock an existing run directory; with `only_look`, several may do so at once.

    Raises:
        ValueError: another process holds the lock.
    """
    if os.name == "nt":
        yield  # a directory cannot be locked there
        return
    import fcntl

    handle = os.open(run_dir, os.O_RDONLY)
    _handles.add(handle)
    try:
        kind = fcntl.LOCK_SH if only_look else fcntl.LOCK_EX
        give_up = time.monotonic() + (0 if only_look else PATIENCE)
        while True:
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    said = f"another process is training in {run_dir}; wait for it"
                    raise ValueError(said) from None
                time.sleep(0.02)
        yield
    finally:
        if handle in _handles:  # not in a child, which has closed it
            _handles.remove(handle)
            os.close(handle)
