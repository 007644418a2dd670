"""Reporting to MLflow during a run, by a separate process that follows the run directory.

The run directory is the buffer: training writes it anyway, never waits for the network and does not
notice whether a server answers. `mlflow.py` is the code of the other process.
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
"""Tells the other process that the run ended with an error, not by request."""
ENDINGS = (signal.SIGTERM, FAILED)
"""Signals blocked while the follower starts, so that none is lost if the run ends immediately."""
STOP_SECONDS = 15
"""How long a stopped run waits for its last rows to be sent."""


class NullTracker:
    """Does nothing, so that the training code needs no branches."""

    def start(self) -> None:
        """Called once the manifest is on disk."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        """Called when the run ends, normally or by an exception."""


class MlflowTracker(NullTracker):
    """Starts a separate process that sends the run to the server at `uri`."""

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
                # The address may hold a password: other users can see a command, not its variables.
                env={**for_children(), "MLFLOW_TRACKING_URI": self._uri},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the trainer, which then ends this cleanly
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
            # After a complete run, wait: the follower gives up by itself (TRACKING_PATIENCE).
            self._process.wait(STOP_SECONDS if kind is not None else None)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode < 0:  # killed, so that it could not report this itself
            _log.warning(
                "MLflow was not told the end of this run; later: python -m %s track %s",
                *(PROJECT, self._run_dir),
            )


def check_address(uri: str) -> None:
    """Raise a `ValueError` unless `uri` is an address that the light client supports."""
    if not re.match(r"https?://[^/]", uri):
        raise ValueError(
            "MLFLOW_TRACKING_URI must be the address of a server, such as http://127.0.0.1:5000"
        )


def build_tracker(uri: str, run_dir: Path) -> NullTracker:
    """The tracker for the server at `uri`; an empty `uri` means none.

    Raises:
        ValueError: it is not a valid address.
    """
    if uri:
        check_address(uri)
    return MlflowTracker(uri, run_dir) if uri else NullTracker()
