"""Gradients of a batch in pieces: the same bits on any number of processes.

A piece's gradient depends on the weights, its samples and its own random stream; `tree.py` adds the
pieces in a fixed order, whoever holds them.

The order of additions is all that keeps a sum of gradients from being the same for any number of
processes; EasyScale (Li et al., SC 2023) and MosaicML's streaming fix the order of samples only.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..config.base import Distributed
from .pieces import share
from .ranks import OneProcess
from .tree import Leaf, TreeSum


def num_pieces(distributed: Distributed, ranks: OneProcess) -> int:
    """How many pieces a batch has.

    Raises:
        ValueError: there are fewer than ranks.
    """
    if distributed.gradients == "ordered":
        return ranks.size
    if ranks.size > distributed.num_pieces:
        raise ValueError(
            f"distributed.num_pieces is {distributed.num_pieces}, the largest number of processes; "
            f"torchrun started {ranks.size}: set distributed.num_pieces={ranks.size} or more (its "
            "bits depend on it), or distributed.gradients=ordered"
        )
    return distributed.num_pieces


def gradients_for(num_pieces: int, accumulate: int, ranks: OneProcess) -> "WholeBatch":
    """What adds up the gradients of a step."""
    whole = num_pieces == ranks.size == 1
    return WholeBatch(accumulate) if whole else Pieces(num_pieces, accumulate, ranks)


class WholeBatch:
    """The batch of a step as it comes: one process, one piece."""

    num_pieces = 1
    pieces = range(1)

    def __init__(self, accumulate: int) -> None:
        self._share = accumulate
        self._losses: list[Tensor] = []
        self.whole = False
        """Whether the loop over the pieces of this step has ended."""

    def place(self, module: nn.Module) -> None:
        """Sum the gradients of this module over the pieces."""

    def cut(self, parts: Sequence[Any], seed: Callable[[int], None]) -> Iterator[Any]:
        """Yield what to compute forward and backward, one after the other; afterwards the gradients
        are those of the whole batch. `seed` starts the random stream of a piece.

        Raises:
            ValueError: `backward` was not called once for each.
        """
        self._losses, self.whole = [], False
        for number, part in enumerate(parts, start=1):
            yield part
            self._check(number)
        self.whole = True

    def backward(self, loss: Tensor, scaler: Any = None) -> None:
        """Add the gradients of the mean `loss` of what was yielded, by its share of the batch."""
        loss = loss / self._share if self._share > 1 else loss
        self._losses.append(loss.detach())
        (loss if scaler is None else scaler.scale(loss)).backward()

    def loss(self) -> Tensor:
        """The mean loss of the batch."""
        return self._losses[0] if self._share == 1 else _in_order(self._losses)

    def _check(self, number: int) -> None:
        if len(self._losses) != number:
            calls = "never" if len(self._losses) < number else "more than once"
            raise ValueError(f"run.backward was called {calls} for a piece of run.pieces")


class Pieces(WholeBatch):
    """A batch in `num_pieces` pieces, shared by the ranks.

    Running statistics, such as those of batch normalization, start each piece from where the step
    began, and become the mean of what the pieces make of them.
    """

    def __init__(self, num_pieces: int, accumulate: int, ranks: OneProcess) -> None:
        super().__init__(num_pieces * accumulate)
        self.num_pieces = num_pieces
        self.pieces = share(num_pieces, ranks.rank, ranks.size)
        self._modules: list[nn.Module] = []
        self._statistics: _Statistics | None = None
        self._tree = TreeSum(num_pieces, ranks)
        self._total: Tensor | None = None

    def place(self, module: nn.Module) -> None:
        self._modules.append(module)

    def cut(self, parts: Sequence[Any], seed: Callable[[int], None]) -> Iterator[Any]:
        if not self._modules:
            raise ValueError(
                "run.pieces needs to know whose gradients it adds: model = run.place(model)"
            )
        self._losses, self.whole = [], False
        parameters = _parameters(self._modules)
        kept = [parameter.grad for parameter in parameters]
        statistics = self._statistics = self._statistics or _Statistics(self._modules)
        statistics.keep()
        self._tree.start()
        for place, piece in enumerate(self.pieces):
            for parameter in parameters:
                parameter.grad = None
            statistics.reset()
            seed(piece)
            for number, part in enumerate(parts, start=1):
                yield _slice(part, place, len(self.pieces))
                self._check(place * len(parts) + number)
            gradients = [parameter.grad for parameter in parameters]
            self._tree.add(piece, gradients + statistics.moved())
        total, losses = self._tree.total([loss.double() for loss in self._losses])
        for parameter, before, gradient in zip(parameters, kept, total, strict=False):
            parameter.grad = gradient if before is None or gradient is None else before + gradient
        statistics.set([*total[len(parameters) :]], self.num_pieces)
        self._total = _in_order(losses)
        self.whole = True

    def loss(self) -> Tensor:
        return self._total


def _in_order(numbers: list[Tensor]) -> Tensor:
    # On the device, so that nobody waits for it; in float64, where the order still counts.
    total = numbers[0].double()
    for number in numbers[1:]:
        total = total + number
    return total


def _parameters(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    found = {id(p): p for module in modules for p in module.parameters()}
    return list(found.values())


class _Statistics:
    """The buffers that a forward pass changes: each piece starts from the same values."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._places = [
            (owner, name)
            for module in modules
            for owner in module.modules()
            for name, buffer in owner._buffers.items()
            if buffer is not None
        ]
        self._before: list[Tensor] = []
        self._moving: set[int] = set()

    def keep(self) -> None:
        """Note the values before a step."""
        self._before = [buffer.clone() for buffer in self._now()]

    def reset(self) -> None:
        """Give every changed buffer the value from before the step."""
        now = self._now()
        for number in self._moving:
            now[number].copy_(self._before[number])

    def moved(self) -> Leaf:
        """What the piece made of the buffers it changed; counters are the same for every piece."""
        now = self._now()
        for number, (buffer, before) in enumerate(zip(now, self._before, strict=True)):
            # By value: the kernels of batch normalization leave no other trace.
            if number not in self._moving and not torch.equal(buffer, before):
                self._moving.add(number)
        return [
            buffer.clone() if number in self._moving and buffer.is_floating_point() else None
            for number, buffer in enumerate(now)
        ]

    def set(self, total: Leaf, num_pieces: int) -> None:
        """Take the mean over the pieces."""
        for buffer, value in zip(self._now(), total, strict=True):
            if value is not None:
                buffer.copy_(value / num_pieces)

    def _now(self) -> list[Tensor]:
        return [owner._buffers[name] for owner, name in self._places]


def _slice(batch: Any, place: int, number: int) -> Any:
    """The piece at `place` of `number` pieces of equal size, of every tensor in a batch."""
    if isinstance(batch, Tensor):
        size = len(batch) // number
        return batch[place * size : (place + 1) * size]
    if isinstance(batch, dict):
        return {key: _slice(value, place, number) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_slice(value, place, number) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(_slice(value, place, number) for value in batch)
    raise ValueError(f"run.pieces cuts tensors, got {type(batch).__name__} in the batch")
