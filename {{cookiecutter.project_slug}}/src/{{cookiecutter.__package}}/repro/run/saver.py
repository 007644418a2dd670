"""Checkpoints are written beside the training: a step need not wait for the disk."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from .checkpoint import save_checkpoint


class Saver:
    """Writes checkpoints into `folder`, one at a time; `keep` of them stay. A context manager.

    What it is given must not change any more. A kill costs at most what is being written; leaving
    the context waits for it.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saver")
        self._writing: Future[None] | None = None

    def save(self, states: list[dict[str, Any]], *, first: Callable[[], None], wait: bool) -> None:
        """Call `first`, which brings the logs to the disk, then write the checkpoints in order.

        Raises:
            OSError: one of them, or with `wait=False` of those before, could not be written.
        """
        self.wait()
        self._writing = self._thread.submit(self._write, states, first)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until everything is on the disk.

        Raises:
            OSError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def _write(self, states: list[dict[str, Any]], first: Callable[[], None]) -> None:
        first()
        for state in states:
            save_checkpoint(self._folder, state, keep=self._keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._thread.shutdown(wait=True)
