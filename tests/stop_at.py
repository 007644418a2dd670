"""Run cookiecutter and send it a signal at its N-th change of a folder, just before that is made.

python -P stop_at.py FOLDER N SIGNAL ARGUMENT …
N is the number of a change, from 0, or the end of a path, to be stopped while that is written. The
signal is sent again at every change from then on, as by somebody impatient. At the end, all changes
are printed as JSON, if it gets so far.
"""

import json
import os
import signal
import sys
from pathlib import Path

from cookiecutter.cli import main

CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod")
folder, where, name = sys.argv[1:4]
sys.argv[1:4] = []
made = []


def stop(event: str, arguments: tuple) -> None:
    """Count, and send the signal."""
    if event not in CHANGES or where == "writing":
        return
    if where == "sent":
        os.kill(os.getpid(), getattr(signal, name))
        return
    path = os.fspath(arguments[0]) if not isinstance(arguments[0], int) else ""
    if event == "open" and not (str(path).startswith(folder) and arguments[2] & os.O_ACCMODE):
        return
    if not (str(path).startswith(folder) or made):
        return
    made.append(f"{event} {path}")
    if where == str(len(made) - 1) or (event == "open" and str(path).endswith(where)):
        send(Path(path) if event == "open" else None)


def send(path: Path | None) -> None:
    """The signal; a file is left cut off if it is not one that was there."""
    global where
    where = "writing"
    if path and not path.exists():
        path.write_bytes(b"half a l")
    where = "sent"
    os.kill(os.getpid(), getattr(signal, name))


sys.addaudithook(stop)
try:
    main()
finally:
    sys.stdout.flush()
    print(json.dumps(made))
