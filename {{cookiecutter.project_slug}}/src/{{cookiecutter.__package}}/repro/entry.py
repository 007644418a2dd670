"""What happens before every command: open streams, the right source, no foreign modules.

Standard library only: until `enter` has returned, an import could pick up something other than
the installed package.
"""

import os
import site
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .files import PACKAGE, SOURCE
from .launched import without_launcher
from .shell import imports

BAD_INPUT = 2

_RESTARTS = "REPRO_RESTARTS"
MAX_RESTARTS = 3
"""At most two are needed: one for the imports, and one for what the configuration chooses."""
_AT_START = dict(os.environ)
"""The environment variables this process was started with, before `.env` was read."""


def enter() -> None:
    """Restart this program if it could import foreign modules, or end it with a one-line error."""
    open_streams()
    try:
        here = Path.cwd()
    except OSError:
        print("error: the working directory is gone; cd to one that exists", file=sys.stderr)
        sys.exit(BAD_INPUT)
    if other := other_checkout(here):
        print(
            f"error: the working directory is in {other}, this Python runs the source of "
            f"{SOURCE.parent}; run make setup there, and its own .venv/bin/python",
            file=sys.stderr,
        )
        sys.exit(BAD_INPUT)
    if shadow := shadowing_module(here):
        print(
            f"error: Python would import {shadow} in place of the library of that name; rename it, "
            "or start from another folder",
            file=sys.stderr,
        )
        sys.exit(BAD_INPUT)
    if sys.flags.ignore_environment:
        print(
            "error: Python was started with -E or -I, and does not read PYTHONHASHSEED then; "
            "start it without",
            file=sys.stderr,
        )
        sys.exit(BAD_INPUT)
    wanted = imports(os.environ)
    if not site.ENABLE_USER_SITE:
        del wanted["PYTHONNOUSERSITE"]  # virtual environments of `venv` have none
    try:
        restart_with(wanted)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def open_streams() -> None:
    """Replace closed standard streams by streams to the null device.

    Otherwise the next file opened gets their file descriptors, and libraries would print into it.
    """
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
    os.close(handle)
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            stream = os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False)
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        # A folder may have any bytes as its name, and a terminal any encoding.
        if getattr(stream, "errors", "") == "strict":
            stream.reconfigure(errors="backslashreplace")


def other_checkout(folder: Path) -> Path | None:
    """The checkout of this project that contains `folder`, if it is not the one being run.

    A copied virtual environment, one activated in the shell, or an editable install of the same
    name would run the code of one checkout on the files of another.
    """
    inside = Path("src", PACKAGE.name)
    for root in (folder, *folder.parents):
        if (root / inside / "__main__.py").is_file():
            return None if (root / inside).samefile(PACKAGE) else root
    return None


def shadowing_module(here: Path) -> Path | None:
    """A module in the working directory or beside `train.py` that has the name of a library.

    Python looks there first. Folders of tests are no modules that anything here imports.
    """
    libraries = [Path(path) for path in sys.path if path.endswith("-packages")]
    searched = {Path(path or here) for path in sys.path} & {here, SOURCE.parent}
    for folder in sorted(searched):
        for path in sorted(folder.glob("*.py")) + sorted(folder.glob("*/__init__.py")):
            module = path if path.parent == folder else path.parent
            name = module.stem
            installed = (
                (library / name).is_dir() or (library / f"{name}.py").is_file()
                for library in libraries
            )
            if name in ("test", "tests"):
                continue
            if name in sys.stdlib_module_names or any(installed):
                return module
    return None


def for_children() -> dict[str, str]:
    """Environment variables for child processes: they import the source running now, and are
    started by themselves, whatever started this process."""
    return {**without_launcher(os.environ), "PYTHONPATH": str(SOURCE)}


def restart_with(wanted: Mapping[str, str | None]) -> None:
    """Restart this program with the environment variables `wanted`, unless they are set already.

    `None` means that a variable must be unset.

    Raises:
        ValueError: a wrapper around Python sets one of them again at every start.
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
        # On Windows, execve returns to the shell before the new program ends.
        sys.exit(subprocess.run(command, env=environ).returncode)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, environ)
