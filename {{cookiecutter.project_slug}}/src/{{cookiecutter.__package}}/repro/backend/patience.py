"""Wait for batches, but not forever: loader processes can fail silently.

A loader process passes its batches through `/dev/shm`. If that is full, the batch is lost in a
thread of the process, and the trainer would wait for it forever.
"""

import errno
import os
import re
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

from ..signals import StopRequest
from . import facts

PATIENCE = 600
"""Seconds to wait for a batch if the variable LOADER_PATIENCE is not set."""
SHARED_MEMORY = Path("/dev/shm")
ADVICE = "set data.num_workers=0, or give a container more (docker run --shm-size=2g)"

Batch = TypeVar("Batch")


class LoaderError(Exception):
    """No batch arrived in time; the message is one line that says what to do."""


def patience() -> float:
    """How long to wait for a batch, in seconds.

    Raises:
        ValueError: LOADER_PATIENCE is not a number of seconds.
    """
    text = os.environ.get("LOADER_PATIENCE") or str(PATIENCE)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e8:
        raise ValueError(f"LOADER_PATIENCE must be a number of seconds above 0, got {text!r}")
    return seconds


def check_shared_memory(num_bytes: int, folder: Path = SHARED_MEMORY) -> None:
    """Check that the batches kept ready by loader processes, `num_bytes` in all, fit into memory.

    Raises:
        ValueError: they do not fit into shared memory.
    """
    if not folder.is_dir():
        return  # not Linux: the system keeps them elsewhere
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
    except OSError as error:
        wanted = f"loader processes hand batches over in {folder}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
            raise ValueError(
                f"{wanted}, which has {free / 1e6:.1f} MB free and needs {num_bytes / 1e6:.1f} MB; "
                f"{ADVICE}"
            ) from None
        raise ValueError(f"{wanted}, which cannot be written: {error.strerror}; {ADVICE}") from None


def take(batches: Iterable[Batch], stop: StopRequest) -> Iterator[Batch]:
    """Yield from `batches`; stop early, with `stop.failure` set, if a batch takes longer than
    `patience` or a loader process dies.

    Errors in the data set's own code propagate unchanged, with their traceback.
    """
    iterator, seconds = iter(batches), patience()
    _hear_of_deaths_here_only()
    while True:
        try:
            with _alarm(seconds):
                batch = next(iterator)
        except StopIteration:
            return
        except LoaderError as error:
            stop.failure = str(error)
            return
        except RuntimeError as error:
            said = " ".join(str(error).split())
            if not re.match(r"DataLoader worker \(pid.* (killed|exited)", said):
                raise
            stop.failure = f"a loader process died ({said[:120]}); {ADVICE}"
            return
        yield batch


def _hear_of_deaths_here_only() -> None:
    """Detect a dead loader process only while waiting for a batch, which takes a few seconds.

    torch's SIGCHLD handler raises the error at once, whatever the main thread is doing: possibly
    in the middle of a step, where no checkpoint can be written.
    """
    number = getattr(signal, "SIGCHLD", None)  # not on Windows
    if number is None or threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(number)
    if getattr(handler, "__module__", "").startswith("torch."):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise a `LoaderError` in the block after `seconds`, by a signal that interrupts any wait."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or not hasattr(signal, "setitimer"):
        yield  # Python delivers signals to the main thread only
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise LoaderError(
            f"no batch came for {seconds:g} seconds; {facts.WAITS_FOR}, or set LOADER_PATIENCE to "
            "more seconds"
        )

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
