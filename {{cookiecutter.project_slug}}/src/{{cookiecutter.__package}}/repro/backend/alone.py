"""A training in a single process, with the methods of one among several. No framework is imported.

Both kinds have the same methods, so that nobody asks for the number.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..config.base import Section
from ..signals import StopRequest

T = TypeVar("T")


class RankError(RuntimeError):
    """Another rank has ended, or does not answer; the message is one line."""


class OneProcess:
    """A training in a single process: every question has an answer of its own."""

    rank = local_rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the record."""
        return self.rank == 0

    def first(self, work: Callable[[], T]) -> T:
        """What `work` returns on the first rank, on every rank; or the error that it raises."""
        return work()

    def same(self, facts: Mapping[str, Any], what: str = "", advice: str = "") -> None:
        """Check that `facts` are equal on every rank.

        Raises:
            ValueError: they differ; the message names them, the ranks, and ends in the advice.
        """

    def all_see(self, path: Path) -> None:
        """Check that every rank sees the file `path`, which the first has written.

        Raises:
            ValueError: a rank does not.
        """

    def hear(self, stop: StopRequest) -> bool:
        """Tell the others, before a step, of a signal or a failure here; whether there is a batch
        for everyone."""
        return not stop.failure

    def signal(self, stop: StopRequest) -> int | None:
        """The signal that asks all ranks to stop after this step."""
        return stop.signal_number

    def gather(self, value: T) -> list[T]:
        """`value` of every rank, in their order."""
        return [value]

    def use(self, device: Any, distributed: Section) -> None:
        """Choose how tensors on `device` travel.

        Raises:
            ValueError: the section `distributed` asks for what does not work with this device.
        """
        if getattr(distributed, "backend", "") == "nccl" and device.type != "cuda":
            raise ValueError(
                f"distributed.backend is nccl, which needs GPUs; the device is {device}"
            )

    def describe(self) -> dict[str, Any]:
        """What the manifest records about the ranks."""
        return {"num_ranks": 1, "num_nodes": 1, "backend": None}


ONE_PROCESS = OneProcess()
