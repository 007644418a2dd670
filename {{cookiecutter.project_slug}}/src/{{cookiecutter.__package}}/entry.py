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

from .shell import imports

PACKAGE = Path(__file__).resolve().parent
BAD_INPUT = 2

_AT_START = dict(os.environ)
"""What this process was started with, before `.env` was read."""


def enter() -> None:
    """Start this program again where it could import something else, or end it with one line."""
    open_streams()
    if other := other_checkout(Path.cwd()):
        print(
            f"error: the working directory is in {other}, this Python runs the source of "
            f"{PACKAGE.parents[1]}; run make setup there, and its own .venv/bin/python",
            file=sys.stderr,
        )
        sys.exit(BAD_INPUT)
    wanted = imports(os.environ)
    if not site.ENABLE_USER_SITE:
        del wanted["PYTHONNOUSERSITE"]  # an environment of venv has none
    restart_with(wanted)


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
    return {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}


def restart_with(wanted: Mapping[str, str | None]) -> None:
    """Start this program again with `wanted` in its environment, unless it is so already.

    `None` stands for a variable that must not be set.
    """
    if all(environ.get(n) == v for environ in (_AT_START, os.environ) for n, v in wanted.items()):
        return
    command = [sys.executable, *sys.orig_argv[1:]]
    merged = {**os.environ, **wanted}
    environ = {name: value for name, value in merged.items() if value is not None}
    if os.name == "nt":
        # On Windows execve returns to the shell before the new program ends.
        sys.exit(subprocess.run(command, env=environ).returncode)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, environ)
