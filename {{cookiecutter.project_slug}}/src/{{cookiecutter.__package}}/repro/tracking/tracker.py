"""Reporting to MLflow while a run lasts, by a process of its own that follows its directory.

The run directory is the buffer: training writes it in any case, waits for no network and never
learns whether a server answers. `mlflow.py` is what the other process does.
"""

import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from ..entry import for_children
from ..files import PROJECT
from ..signals import Interrupted

_log = logging.getLogger(__name__)

FAILED = getattr(signal, "SIGHUP", signal.SIGTERM)
"""What tells the other process that the run ended by an error, not by a request."""
ENDINGS = (signal.SIGTERM, FAILED)
"""Held back from before the other process starts until it listens: a run may end at once."""
STOP_SECONDS = 15
"""How long a run that was stopped waits for its last rows to be sent."""


class NullTracker:
    """Does nothing, so that training has no branches."""

    def start(self) -> None:
        """The run's record is there."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        """The run is complete, or was stopped by an exception."""


class MlflowTracker(NullTracker):
    """Has a process of its own send the run to the server at `uri`."""

    def __init__(self, uri: str, run_dir: Path) -> None:
        self._uri, self._run_dir = uri, run_dir
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", PROJECT, "track", str(self._run_dir)]
        held = hasattr(signal, "pthread_sigmask")  # not on Windows
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS) if held else ()
        try:
            self._process = subprocess.Popen(
                [*command, "--follow", str(os.getpid())],
                # The address may hold a password; others see a command, not its environment.
                env={**for_children(), "MLFLOW_TRACKING_URI": self._uri},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the trainer, which then ends this in order
            )
        except OSError as error:
            _log.warning("MLflow is not told, training continues: %s", error.strerror)
        finally:
            if held:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __exit__(self, kind: type | None, *error: object) -> None:
        if self._process is None:
            return
        if kind is not None:
            self._process.send_signal(signal.SIGTERM if kind is Interrupted else FAILED)
        try:
            # A run that came to its end waits: the other gives up by itself (TRACKING_PATIENCE).
            self._process.wait(STOP_SECONDS if kind is not None else None)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode < 0:  # killed, so that it could not say so itself
            _log.warning(
                "MLflow was not told the end of this run; later: python -m %s track %s",
                *(PROJECT, self._run_dir),
            )


def check_address(uri: str) -> None:
    """Raise a `ValueError` unless `uri` is an address that the light client can talk to."""
    if not re.match(r"https?://[^/]", uri):
        raise ValueError(
            "MLFLOW_TRACKING_URI must be the address of a server, such as http://127.0.0.1:5000"
        )


def build_tracker(uri: str, run_dir: Path) -> NullTracker:
    """The tracker for the server at `uri`; an empty `uri` means none.

    Raises:
        ValueError: it is no address.
    """
    if uri:
        check_address(uri)
    return MlflowTracker(uri, run_dir) if uri else NullTracker()
