"""Commands that a command starts: none of them is still at work after it."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

GRACE = 10
"""Seconds that a stopped command may take to end."""


@contextmanager
def started(
    command: list[object], *, stop: int = signal.SIGINT, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Start a command; `options` are those of `subprocess.Popen`.

    If an exception leaves the block, stop the command with the signal `stop`, or after ten seconds
    with SIGKILL, and wait for its end: what still ran would write into a folder that the caller
    removes or restores. `subprocess` itself waits a quarter of a second after Ctrl-C.
    """
    with subprocess.Popen(list(map(str, command)), **options) as process:
        try:
            yield process
        except BaseException:
            with undisturbed():
                _end(process, stop)
            raise


def _end(process: subprocess.Popen[Any], stop: int) -> None:
    for number in (stop, signal.SIGKILL):
        process.send_signal(number)
        # Not `wait`: a command whose pipe is full would never end.
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=GRACE)
            return


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold back signals to the end: make sends a second one, which would cut the clean-up short."""
    held = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
