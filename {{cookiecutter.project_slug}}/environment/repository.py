"""Run git in a given repository, whatever the caller's variables say.

A git hook sets variables that name its repository: `make test` in a hook would otherwise use that
repository's index, work tree and configuration.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from failure import SetupError

TRANSPORT = re.compile("GIT_(SSH|ASKPASS|SSL|HTTP|PROXY|CONFIG|TERMINAL_PROMPT)")
"""Variables that say how to reach remote repositories."""


def git(
    folder: Path, *arguments: str | Path, transport: bool = False, **how: Any
) -> subprocess.CompletedProcess[Any]:
    """Run git in `folder`; `how` is passed to `subprocess.run`.

    Raises:
        SetupError: git is not installed, or refuses to read the repository.
    """
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or (transport and TRANSPORT.match(name))
    }
    # Never prompt for a password: there may be nobody to type it.
    environ |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    how = {"encoding": "utf-8", "errors": "replace", "stdin": subprocess.DEVNULL, **how}
    if "input" in how:
        del how["stdin"]
    command = ["git", "-C", str(folder), *map(str, arguments)]
    try:
        done = subprocess.run(command, env=environ, capture_output=True, **how)
    except FileNotFoundError:
        raise SetupError("git not found: install it") from None
    if done.returncode and "dubious ownership" in str(done.stderr):
        raise SetupError(
            f"git refuses to read {folder}, which belongs to another user; if it is yours: "
            f"git config --global --add safe.directory {folder}",
        )
    return done
