"""What comes before every command: streams to write to, the right source, nobody else's modules.

Standard library only: until `enter` has returned, an import could take another package than the
installed one.
"""

import os
import site
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .files import PACKAGE, SOURCE
from .shell import imports

BAD_INPUT = 2

_RESTARTS = "REPRO_RESTARTS"
MAX_RESTARTS = 3
"""Two are needed at most: for what is imported, and for what the configuration chooses."""
_AT_START = dict(os.environ)
"""What this process was started with, before `.env` was read."""


def enter() -> None:
    """Start this program again where it could import something else, or end it with one line."""
    open_streams()
    if other := other_checkout(Path.cwd()):
        print(
            f"error: the working directory is in {other}, this Python runs the source of "
            f"{SOURCE.parent}; run make setup there, and its own .venv/bin/python",
            file=sys.stderr,
        )
        sys.exit(BAD_INPUT)
    wanted = imports(os.environ)
    if not site.ENABLE_USER_SITE:
        del wanted["PYTHONNOUSERSITE"]  # an environment of venv has none
    try:
        restart_with(wanted)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def open_streams() -> None:
    """Give a process whose standard streams are closed others, which lead nowhere.

    Otherwise the next file that is opened takes their numbers, and what libraries print ends in it.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            stream = os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False)
            setattr(sys, name, stream)


def other_checkout(folder: Path) -> Path | None:
    """The checkout of this project that `folder` is in, if it is not the one that runs.

    A copied environment, one that is active in the shell, or an editable install of the same name
    would run the code of one checkout on the files of another.
    """
    inside = Path("src", PACKAGE.name)
    for root in (folder, *folder.parents):
        if (root / inside / "__main__.py").is_file():
            return None if (root / inside).samefile(PACKAGE) else root
    return None


def for_children() -> dict[str, str]:
    """The environment in which `python -m` this package finds the source that runs now."""
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


def restart_with(wanted: Mapping[str, str | None]) -> None:
    """Start this program again with `wanted` in its environment, unless it is so already.

    `None` stands for a variable that must not be set.

    Raises:
        ValueError: whatever starts Python here sets one of them each time.
    """
    both = (_AT_START, os.environ)
    odd = [name for name, value in wanted.items() if any(e.get(name) != value for e in both)]
    if not odd:
        return
    process, _, times = os.environ.get(_RESTARTS, "").partition(":")
    number = 1 + (int(times) if process == str(os.getpid()) else 0)
    if number > MAX_RESTARTS:
        raise ValueError(f"{odd[0]} is set again whenever {sys.executable} starts; look who does")
    command = [sys.executable, *sys.orig_argv[1:]]
    merged = {**os.environ, **wanted, _RESTARTS: f"{os.getpid()}:{number}"}
    environ = {name: value for name, value in merged.items() if value is not None}
    if os.name == "nt":
        # On Windows execve returns to the shell before the new program ends.
        sys.exit(subprocess.run(command, env=environ).returncode)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, environ)
