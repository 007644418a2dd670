"""Whether torchrun started this process together with others, and what they tell each other before
they are connected and after one of them has failed.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK and where the processes meet (MASTER_ADDR, MASTER_PORT);
https://docs.pytorch.org/docs/stable/elastic/run.html. Other programs leave some of these variables
behind, so what counts is the one that only torchrun sets.
"""

import hashlib
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from .backend import facts

BAD_INPUT = 2
GRACE = 5
"""Seconds that a rank with bad input waits for the others to find the same."""

_MARK = "TORCHELASTIC_RUN_ID"
SET_BY_TORCHRUN = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_USE_AGENT_STORE"),
    *(_MARK, "TORCHELASTIC_ERROR_FILE", "GROUP_WORLD_SIZE"),
)
"""Variables that are no settings of anybody's."""
_NOT_TORCHRUN = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "WORLD_SIZE")
"""Variables in which other launchers say how many processes they started."""


def without_launcher(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for a process that is started by itself, or by a torchrun of its own."""
    return {n: v for n, v in environ.items() if n not in (*SET_BY_TORCHRUN, *_NOT_TORCHRUN)}


_REPLACED_NODE_ADVICE = (
    "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun on every node, or the ranks of a node "
    "that is replaced do not find the others"
)


def is_launched() -> bool:
    """Whether torchrun started this process."""
    return _MARK in os.environ


def rank() -> int:
    """This process among all that torchrun started, or 0."""
    return int(os.environ["RANK"]) if is_launched() else 0


def speaks() -> bool:
    """Whether this process reports progress and results: one of all does."""
    return rank() == 0


def restarts() -> int:
    """How often torchrun has started all processes again after one of them failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0) if is_launched() else 0


def is_store_kept() -> bool:
    """Whether what processes tell each other outlives them: torchrun's own store does; with
    `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1` each start has a new one."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def check_launcher() -> str:
    """Advice about variables that are ignored, or missing; empty if there is none.

    Raises:
        ValueError: another launcher started several processes, each of which would take itself for
            the only one.
    """
    if is_launched():
        return _REPLACED_NODE_ADVICE if _may_lose_a_node() and speaks() else ""
    for name in _NOT_TORCHRUN:
        number = os.environ.get(name, "")
        if number.isdecimal() and int(number) > 1:
            start = "one torchrun on each node" if facts.RANKS else "a single one"
            raise ValueError(
                f"{name} is {number}, so several processes were started, and not by torchrun; "
                f"start {start}, or unset it for a single process"
            )
    if "RANK" in os.environ:
        return "RANK is set, but not by torchrun: ignored, this is a single process"
    return ""


def _may_lose_a_node() -> bool:
    restarts_allowed = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    several = os.environ.get("GROUP_WORLD_SIZE", "1") != "1"
    return several and restarts_allowed and is_store_kept()


def says(matter: str) -> bool:
    """Whether this process prints an error: of several about the same matter, the first to ask."""
    if not has_others():
        return True
    with suppress(Exception):  # whoever keeps the store may be gone
        return _note(f"error-{hashlib.sha256(matter.encode()).hexdigest()[:16]}") == 1
    return True


def leave(code: int) -> NoReturn:
    """End this process; among others, without taking the interpreter down.

    A thread of gloo that still holds a tensor would abort it there (pytorch#190489).
    """
    if not is_launched():
        sys.exit(code)
    if code == BAD_INPUT and has_others():
        wait_for_the_others()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def wait_for_the_others() -> None:
    """Wait, for a few seconds at most, until all processes are about to leave."""
    # torchrun ends all as soon as one has failed, in the middle of whatever they clean up.
    with suppress(Exception):
        _note("leaving")
        everybody = int(os.environ["WORLD_SIZE" if is_store_kept() else "LOCAL_WORLD_SIZE"])
        deadline = time.monotonic() + GRACE
        while _noted("leaving") < everybody and time.monotonic() < deadline:
            time.sleep(0.02)


def _note(name: str) -> int:
    """Count one more, among all processes that torchrun started together; on this node only if
    their store is not kept, and may be gone with one of them."""
    if is_store_kept():
        from .backend.meeting import store

        return store().add(f"{name}/{restarts()}", 1)
    number = 1
    while True:
        with suppress(FileExistsError):
            (_attempt() / f"{name}-{number}").touch(exist_ok=False)
            return number
        number += 1


def _noted(name: str) -> int:
    if is_store_kept():
        from .backend.meeting import store

        return store().add(f"{name}/{restarts()}", 0)
    return len([*_attempt().glob(f"{name}-*")])


def _attempt() -> Path:
    # torchrun makes a folder for each start, and in it one for each process.
    named = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not named:  # it was told to keep no logs
        raise RuntimeError("torchrun has no folder")
    return Path(named).parent.parent


def has_others() -> bool:
    """Whether torchrun started more than this process."""
    return is_launched() and os.environ.get("WORLD_SIZE") != "1"
