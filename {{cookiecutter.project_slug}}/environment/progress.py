"""One line for a command that prints hundreds: its last word, and the seconds since its start."""

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
    """While the block runs, show in a terminal what is written to `log`; elsewhere nothing."""
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
    """The last line of a log that says something, without codes for terminals and passwords."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]+", CODES.sub("", text))]
    return without_secrets(next((line for line in reversed(lines) if line), "started"))
