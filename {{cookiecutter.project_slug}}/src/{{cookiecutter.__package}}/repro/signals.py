"""Stop a run at the next step when the system asks for it: a cluster's pre-emption, a closed
terminal, Ctrl-C."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Self

from .launched import is_launched

_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
STOP_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
"""What schedulers and terminals send before they kill: TERM by Slurm (any signal by `--signal`),
USR2 and USR1 by LSF and PBS, XCPU by a CPU time limit, HUP by a closed terminal."""
_REPEATED = getattr(signal, "SIGXCPU", None)
"""The kernel repeats it every second until the hard limit kills the process."""


FAILURE = 1


def exit_code(number: int) -> int:
    """128 plus the signal's number, as a shell reports it."""
    return 128 + number


class Interrupted(Exception):  # noqa: N818  (not an error: the run can be resumed)
    """The run stopped after a complete step and saved a checkpoint; `exit_code` tells the cause.

    `reason` says what failed, if it was not a signal.
    """

    def __init__(
        self, run_dir: Path, step: int, signal_number: int | None = None, *, reason: str = ""
    ) -> None:
        stopped = f"stopped after step {step}; resume with train --resume {run_dir}"
        super().__init__(f"error: {reason}; {stopped}" if reason else stopped)
        self.exit_code = 0 if signal_number is None else exit_code(signal_number)
        self.exit_code = FAILURE if reason else self.exit_code


class CtrlC:
    """Remembers that Ctrl-C was pressed during its block: in the middle of an import, libraries may
    swallow a `KeyboardInterrupt` or turn it into another error.

    Python itself swallows exceptions raised in destructors and weak reference callbacks, and prints
    their traceback. Not for this one, which `heed` raises again.
    """

    def __init__(self) -> None:
        self.came = False
        self._unraisable = sys.unraisablehook

    def __enter__(self) -> Self:
        self.came = False
        self._unraisable, sys.unraisablehook = sys.unraisablehook, self._tell_others
        # Not if it is ignored or has another handler.
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if default and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        if signal.getsignal(signal.SIGINT) == self._note:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if sys.unraisablehook == self._tell_others:
            sys.unraisablehook = self._unraisable

    def _tell_others(self, swallowed: "sys.UnraisableHookArgs") -> None:
        if not (self.came and issubclass(swallowed.exc_type, KeyboardInterrupt)):
            self._unraisable(swallowed)

    def heed(self) -> None:
        """Raise the `KeyboardInterrupt` that was swallowed."""
        if self.came:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        signal.default_int_handler(number, frame)


CTRL_C = CtrlC()
"""The one instance of this process, wrapped around a whole command."""


class StopRequest:
    """Records the first of `STOP_SIGNALS` during its block; the same signal again ends the process
    at once. Signals that were ignored before stay ignored (`nohup`)."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.failure = ""
        """Why no batch arrived, if that is what ended the run (`backend/patience.py`)."""
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal_number is not None

    def __enter__(self) -> Self:
        self.signal_number = signal.SIGINT if CTRL_C.came else None
        # Python delivers signals to the main thread only; in other threads it is up to the caller.
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                asked = number in (signal.SIGTERM, signal.SIGINT)
                if asked or signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            # Ignored since it came, or since a rank was lost, and it may come while the run ends.
            if not (_comes_again(number) and signal.getsignal(number) is signal.SIG_IGN):
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number = number
        signal.signal(number, signal.SIG_IGN if _comes_again(number) else signal.SIG_DFL)


def _comes_again(number: int) -> bool:
    # torchrun passes on what it gets, and Slurm signals every process: one request comes as two.
    # Whoever takes too long is ended by torchrun, which ends all as soon as one is lost.
    return is_launched() or number == _REPEATED


def ignore_stop_signals() -> None:
    """For loader processes: the whole process group gets the signal, the trainer handles it. Also
    for a rank that has lost another one, and is about to say so and end."""
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def ending_by_signals() -> Iterator[None]:
    """For commands with nothing to save: `STOP_SIGNALS` end the block by an exception, so that
    child processes and temporary folders are cleaned up too."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(exit_code(number))

    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                previous[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
