"""Run git in a given repository, whatever the caller's variables say.

A git hook sets variables that name its repository: `make test` in a hook would otherwise use that
repository's index, work tree and configuration.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from children import started
from failure import SetupError

TRANSPORT = re.compile("GIT_(SSH|ASKPASS|SSL|HTTP|PROXY|CONFIG|TERMINAL_PROMPT)")
"""Variables that say how to reach remote repositories."""


def git(
    folder: Path,
    *arguments: str | Path,
    given: str | None = None,
    transport: bool = False,
    **how: Any,
) -> subprocess.CompletedProcess[str]:
    """Run git in `folder`, with `given` as its input; `how` is passed to `subprocess.Popen`.

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
    how = {"encoding": "utf-8", "errors": "replace", **how}
    how["stdin"] = subprocess.DEVNULL if given is None else subprocess.PIPE
    how["stdout"] = how["stderr"] = subprocess.PIPE
    command = ["git", "-C", folder, *arguments]
    try:
        with started(command, env=environ, **how) as process:
            output, errors = process.communicate(given)
    except FileNotFoundError:
        raise SetupError("git not found: install it") from None
    if process.returncode and "dubious ownership" in errors:
        raise SetupError(
            f"git refuses to read {folder}, which belongs to another user; if it is yours: "
            f"git config --global --add safe.directory {folder}",
        )
    return subprocess.CompletedProcess(command, process.returncode, output, errors)
