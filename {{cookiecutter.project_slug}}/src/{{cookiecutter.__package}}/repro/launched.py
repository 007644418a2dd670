"""Whether torchrun started this process together with others; no framework is imported.

torchrun sets RANK, WORLD_SIZE, LOCAL_RANK and where the processes meet (MASTER_ADDR, MASTER_PORT);
https://docs.pytorch.org/docs/stable/elastic/run.html. Other programs leave some of these variables
behind, so what counts is the one that only torchrun sets.
"""

import os
import sys
from contextlib import suppress
from typing import NoReturn

_MARK = "TORCHELASTIC_RUN_ID"
_NOT_TORCHRUN = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "WORLD_SIZE")
"""Variables in which other launchers say how many processes they started."""


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


def check_launcher() -> str:
    """Advice about variables of another launcher that are ignored; empty if there are none.

    Raises:
        ValueError: another launcher started several processes, each of which would take itself for
            the only one.
    """
    if is_launched():
        return ""
    for name in _NOT_TORCHRUN:
        number = os.environ.get(name, "")
        if number.isdecimal() and int(number) > 1:
            raise ValueError(
                f"{name} is {number}, so several processes were started, and not by torchrun; "
                "start one torchrun on each node, or unset it for a single process"
            )
    if "RANK" in os.environ:
        return "RANK is set, but not by torchrun: ignored, this is a single process"
    return ""


def says(text: str) -> bool:
    """Whether this process prints an error: of several with the same one, the first to ask."""
    if not is_launched() or os.environ.get("WORLD_SIZE") == "1":
        return True
    with suppress(Exception):  # the other side of the store may be gone
        import datetime

        from torch.distributed import TCPStore

        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        wait = datetime.timedelta(seconds=5)
        store = TCPStore(address, port, is_master=False, timeout=wait, wait_for_workers=False)
        return store.add(f"error/{restarts()}/{text}", 1) == 1
    return True


def leave(code: int) -> NoReturn:
    """End this process; among others, without taking the interpreter down.

    A thread of gloo that still holds a tensor would abort it there (pytorch#190489).
    """
    if not is_launched():
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
