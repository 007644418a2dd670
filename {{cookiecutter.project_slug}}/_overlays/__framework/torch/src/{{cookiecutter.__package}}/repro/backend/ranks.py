"""The processes that torchrun started, which train together. Callers need not know how many there
are: a single one is `alone.OneProcess`, which has the same methods.
"""

import datetime
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ..launched import is_launched, is_store_kept, rank, restarts
from ..signals import StopRequest, ignore_stop_signals
from .alone import ONE_PROCESS, OneProcess, RankError
from .patience import patience
from .sections import Distributed

_log = logging.getLogger(__name__)

T = TypeVar("T")
CPU = torch.device("cpu")
_VARIABLES = ("NCCL_ALGO", "NCCL_PROTO", "NCCL_P2P_DISABLE", "NCCL_IB_DISABLE", "NCCL_NVLS_ENABLE")


_ALL_GATHER = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
"""The older name is deprecated from torch 2.13 on."""

_SAME = "every rank needs the same checkout, data and environment"

_EXIT_DELAY = 2
"""Seconds until a process whose connections are closed has ended."""


def is_everybodys(error: BaseException) -> bool:
    """Whether every rank has got this error, so that all go the same way."""
    return any(getattr(each, "is_everybodys", False) for each in (error, error.__cause__))


class TorchRanks(OneProcess):
    """One of the processes that torchrun started.

    Messages about the run travel by gloo; gradients by NCCL where each process has a GPU of its
    own.
    """

    def __init__(self) -> None:
        # Longer than the loader's patience, so that a rank without a batch can say so itself.
        self._timeout = datetime.timedelta(seconds=2 * patience())
        if not dist.is_initialized():
            store, number, size = next(dist.rendezvous("env://", timeout=self._timeout))
            if is_store_kept():
                # Without a prefix, the processes started again would look for those that are gone
                # (pytorch#135712).
                store = dist.PrefixStore(f"{restarts()}/{size}", store)
            how = {"store": store, "rank": number, "world_size": size}
            dist.init_process_group("gloo", timeout=self._timeout, **how)
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))
        self._device = self._wire = CPU
        self._tensors = dist.group.WORLD
        self._backend = "gloo"
        self._signal: int | None = None
        me = (socket.gethostname(), os.getpid())
        self._others: list[tuple[str, int]] = [me] * self.size
        self._others = self.gather(me)

    def first(self, work: Callable[[], T]) -> T:
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = work()
            except (ValueError, OSError) as error:
                outcome[1] = error
        answer = [_sendable(outcome)]
        self._collective(dist.broadcast_object_list, answer, src=0)
        if not self.is_first:
            outcome = answer[0]
        if outcome[1] is not None:
            outcome[1].is_everybodys = True
            raise outcome[1]
        return outcome[0]

    def same(self, facts: Mapping[str, Any], what: str = "", advice: str = _SAME) -> None:
        all_facts = self.gather(dict(facts))
        # Of those that not every rank has, too: all ranks must come to the same verdict.
        for name in dict.fromkeys(name for each in all_facts for name in each):
            values = [each.get(name) for each in all_facts]
            odd = [number for number, value in enumerate(values) if value != values[0]]
            if odd:
                host = self._others[odd[0]][0]
                raise ValueError(
                    f"{what}{name} of rank {odd[0]} (on {host}) differs from that of rank 0: "
                    f"{str(values[odd[0]])[:40]} against {str(values[0])[:40]}; {advice}"
                )

    def all_see(self, path: Path) -> None:
        blind = [number for number, sees in enumerate(self.gather(path.exists())) if not sees]
        if blind:
            host = self._others[blind[0]][0]
            raise ValueError(
                f"rank {blind[0]} (on {host}) does not see {path}, which rank 0 has written; the "
                "run's directory must be on a file system that all ranks share"
            )

    def hear(self, stop: StopRequest) -> bool:
        news = torch.tensor([bool(stop.failure), stop.signal_number or 0])
        self._collective(dist.all_reduce, news, op=dist.ReduceOp.MAX)
        failed, number = news.tolist()
        self._signal = number or None
        if failed:
            reasons = self.gather(stop.failure)
            number, reason = next((n, text) for n, text in enumerate(reasons) if text)
            stop.failure = f"rank {number}: {reason}"
        return not failed

    def signal(self, stop: StopRequest) -> int | None:
        return self._signal

    def gather(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.size
        self._collective(dist.all_gather_object, values, value)
        return values

    def use(self, device: torch.device, distributed: Distributed) -> None:
        backend = distributed.backend
        super().use(device, distributed)
        self._device = device
        self.same({"kind of device": device.type}, "the ", "name one with its key: cpu or cuda")
        own_gpu = device.type == "cuda" and self._local_size() <= torch.cuda.device_count()
        # All must take the same way: making a group waits for all of them.
        without = [number for number, own in enumerate(self.gather(own_gpu)) if not own]
        if backend == "nccl" and without:
            raise ValueError(
                f"distributed.backend is nccl, which needs a GPU for each process; rank "
                f"{without[0]} (on {self._others[without[0]][0]}) has none of its own"
            )
        if not without and backend != "gloo":
            self._tensors = dist.new_group(backend="nccl", timeout=self._timeout)
            self._wire, self._backend = device, "nccl"

    def swap(self, outgoing: Sequence[torch.Tensor], incoming: Sequence[torch.Tensor]) -> None:
        """Send `outgoing[r]` to each other rank `r`, and fill `incoming[r]` with what it sent.

        Only bytes travel, nothing is added on the way, so that the backend has no say in the
        result. What a rank would send to itself is left alone.
        """
        others = [number for number in range(self.size) if number != self.rank]
        # Itself, unless gloo carries what is on a GPU.
        wired = {number: incoming[number].to(self._wire) for number in others}

        def operations() -> Iterator[dist.P2POp]:
            for number in others:
                for call, tensor in (
                    (dist.isend, outgoing[number].to(self._wire)),
                    (dist.irecv, wired[number]),
                ):
                    yield dist.P2POp(call, tensor.view(torch.uint8), number, self._tensors)

        def carry() -> None:
            for work in dist.batch_isend_irecv([*operations()]):
                work.wait()

        self._collective(carry)
        for number, tensor in wired.items():
            if tensor is not incoming[number]:
                incoming[number].copy_(tensor)

    def send_numbers(self, numbers: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Send numbers to all ranks, as many each. What is returned waits for theirs, one after the
        other; in CPU memory."""
        whole = torch.empty(numbers.numel() * self.size, dtype=numbers.dtype)
        sent: list[Any] = []
        self._collective(lambda: sent.append(_ALL_GATHER(whole, numbers, async_op=True)))

        def arrived() -> torch.Tensor:
            self._collective(sent[0].wait)
            return whole

        return arrived

    def describe(self) -> dict[str, Any]:
        on_gpu = self._device.type == "cuda"
        gpus = self.gather(torch.cuda.get_device_name(self._device) if on_gpu else None)
        if self.is_first and len({*gpus}) > 1:
            _log.warning(
                "warning: the ranks have different GPUs (%s), so the bits depend on which computes "
                "what",
                ", ".join(sorted({*gpus})),
            )
        version = ".".join(map(str, torch.cuda.nccl.version())) if self._backend == "nccl" else None
        return {
            "num_ranks": self.size,
            "num_nodes": len({host for host, _ in self._others}),
            "backend": self._backend,
            "nccl": version,
            "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
            "gpus_by_rank": gpus,
        }

    def _local_size(self) -> int:
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.size))

    def _collective(self, call: Callable[..., Any], *arguments: Any, **how: Any) -> None:
        try:
            call(*arguments, **how)
        except RuntimeError as error:  # every error of torch.distributed
            ignore_stop_signals()
            raise RankError(self._lost() or f"the ranks lost each other: {_short(error)}") from None

    def _lost(self) -> str:
        """Which rank on this machine has ended; empty if none is known to."""
        host = self._others[self.rank][0]
        deadline = time.monotonic() + _EXIT_DELAY
        while time.monotonic() < deadline:
            for number, (where, process) in enumerate(self._others):
                if where == host and _has_ended(process):
                    return f"rank {number} (process {process} on {host}) ended before the others"
            time.sleep(0.02)
        return ""


def connect() -> OneProcess:
    """The ranks of this process; the first call waits for all the others.

    Raises:
        RankError: they do not come.
    """
    global _ranks
    if _ranks is None:
        _ranks = _connected() if is_launched() else ONE_PROCESS
    return _ranks


_ranks: OneProcess | None = None


def _connected() -> OneProcess:
    try:
        return TorchRanks()
    except (RuntimeError, ValueError) as error:
        if isinstance(error, (RankError, ValueError)) and not isinstance(error, dist.DistError):
            raise
        raise RankError(f"rank {rank()} does not reach the others: {_short(error)}") from None


def _sendable(outcome: list[Any]) -> list[Any]:
    # An error may hold what cannot be sent; its class and text can.
    if outcome[1] is None:
        return outcome
    kind = ValueError if isinstance(outcome[1], ValueError) else OSError
    return [None, kind(*outcome[1].args) if kind is OSError else kind(str(outcome[1]))]


def _has_ended(process: int) -> bool:
    """Whether a process of this machine is gone, or waits to be collected by its parent."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return Path("/proc/self").exists()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
