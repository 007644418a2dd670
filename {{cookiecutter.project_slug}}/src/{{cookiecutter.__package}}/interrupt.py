"""Stop a run at the next step when the system asks for it: a cluster's pre-emption, Ctrl-C."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Self

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
"""128 plus the signal's number, as a shell reports it."""


class Interrupted(Exception):  # noqa: N818  (not an error: the run can go on from here)
    """A run stopped after a whole step, with a checkpoint of it; `exit_code` says by what."""

    def __init__(self, run_dir: Path, step: int, signal_number: int | None) -> None:
        super().__init__(f"stopped after step {step}; go on with train --resume {run_dir}")
        self.exit_code = EXIT_CODES.get(signal_number, 0)


class CtrlC:
    """Notes whether Ctrl-C came while its block ran, whatever became of it: in the middle of an
    import, libraries make other errors of a `KeyboardInterrupt`, or swallow it."""

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> Self:
        self.came = False
        # Not where it is ignored, or where somebody else's handler is.
        default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if default and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        if signal.getsignal(signal.SIGINT) == self._note:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def heed(self) -> None:
        """Raise the `KeyboardInterrupt` that was swallowed."""
        if self.came:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        signal.default_int_handler(number, frame)


CTRL_C = CtrlC()
"""Of this process; around a whole command."""


class StopRequest:
    """Notes SIGTERM and SIGINT while its block runs; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signal_number is not None

    def __enter__(self) -> Self:
        self.signal_number = signal.SIGINT if CTRL_C.came else None
        # Python delivers signals to the main thread only; in another the caller decides.
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        signal.signal(number, signal.SIG_DFL)


def ignore_stop_signals() -> None:
    """For loader processes: the whole group gets the signal, the trainer decides what follows."""
    for number in EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)
