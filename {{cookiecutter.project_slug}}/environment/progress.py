"""One line for commands that print hundreds: the latest output, and the elapsed seconds."""

import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from failure import without_secrets

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@contextmanager
def progress(log: Path) -> Iterator[None]:
    """While the block runs, show the progress of `log` in a terminal; elsewhere, show nothing."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_show, args=(log, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _show(log: Path, done: threading.Event) -> None:
    start = time.monotonic()
    while True:
        ended = done.wait(0.5)
        width = shutil.get_terminal_size().columns - 1
        text = f"{time.monotonic() - start:5.0f} s  {'done' if ended else last_line(log)}"[:width]
        print(f"\r{text:<{width}}", end="\n" if ended else "", file=sys.stderr, flush=True)
        if ended:
            return


def last_line(log: Path) -> str:
    """The last non-empty line of a log, without terminal codes and passwords."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]+", CODES.sub("", text))]
    return without_secrets(next((line for line in reversed(lines) if line), "started"))
