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

from .pieces import share
from .ranks import OneProcess
from .sections import Distributed
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
        self.num_pieces, self._ranks = num_pieces, ranks
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
            gradients = [_dense(parameter.grad) for parameter in parameters]
            self._tree.add(piece, gradients + statistics.moved())
        losses = [loss.double() for loss in self._losses]
        total, losses, is_new = self._tree.total(losses, news=bool(statistics.found()))
        for parameter, before, gradient in zip(parameters, kept, total, strict=False):
            parameter.grad = gradient if before is None or gradient is None else before + gradient
        statistics.set([*total[len(parameters) :]], self.num_pieces)
        if is_new:
            self._take_in(statistics)
        self._total = _in_order(losses)
        self.whole = True

    def loss(self) -> Tensor:
        return self._total

    def _take_in(self, statistics: "_Statistics") -> None:
        # Once for each buffer: some rank saw it change, so that all have to share it.
        new = sorted(set().union(*self._ranks.gather(statistics.found())))
        tree = TreeSum(self.num_pieces, self._ranks)
        for place, piece in enumerate(self.pieces):
            tree.add(piece, statistics.first_time(place, new))
        statistics.set(tree.total([])[0], self.num_pieces)
        statistics.watch(new)


def _in_order(numbers: list[Tensor]) -> Tensor:
    # On the device, so that nobody waits for it; in float64, where the order still counts.
    total = numbers[0].double()
    for number in numbers[1:]:
        total = total + number
    return total


def _dense(gradient: Tensor | None) -> Tensor | None:
    if gradient is not None and gradient.is_sparse:
        raise ValueError(
            "a gradient is sparse, and run.pieces adds dense ones: leave out sparse=True, or set "
            "distributed.num_pieces=1"
        )
    return gradient


def _parameters(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    found = {id(p): p for module in modules for p in module.parameters()}
    return list(found.values())


class _Statistics:
    """The buffers that a forward pass changes: each piece starts from the same values.

    Which they are shows in training, and all ranks must know of each: a piece that leaves such a
    buffer alone contributes the value from before the step.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._places = [
            (owner, name)
            for module in modules
            for owner in module.modules()
            for name, buffer in owner._buffers.items()
            if buffer is not None
        ]
        self._moving: set[int] = set()
        self._before: list[Tensor] = []
        self._after: list[dict[int, Tensor]] = []
        """For each piece, the buffers that it changed and that nobody had changed so far."""
        self._counts: dict[int, Tensor] = {}
        """Whole numbers after the first piece."""

    def keep(self) -> None:
        """Note the values before a step."""
        self._before = [buffer.clone() for buffer in self._now()]
        self._after, self._counts = [], {}

    def reset(self) -> None:
        """Give every changed buffer the value from before the step."""
        now = self._now()
        for number in self._moving | self.found():
            now[number].copy_(self._before[number])

    def moved(self) -> Leaf:
        """What the piece made of the buffers that are known to change.

        Raises:
            ValueError: a count differs between two pieces, so that there is no mean.
        """
        now = self._now()
        # By value: the kernels of batch normalization leave no other trace.
        self._after.append(
            {
                number: buffer.clone()
                for number, (buffer, before) in enumerate(zip(now, self._before, strict=True))
                if number not in self._moving and not _same_bits(buffer, before)
            }
        )
        for number, buffer in enumerate(now):
            if not buffer.is_floating_point():
                first = self._counts.setdefault(number, buffer.clone())
                if not torch.equal(first, buffer):
                    raise ValueError(
                        f"the buffer {self._places[number][1]} counts differently for two pieces "
                        "of a batch, and has no mean; set distributed.num_pieces=1"
                    )
        return [
            buffer.clone() if number in self._moving and buffer.is_floating_point() else None
            for number, buffer in enumerate(now)
        ]

    def found(self) -> set[int]:
        """The buffers that changed here for the first time in this step."""
        return set().union(*self._after)

    def first_time(self, place: int, new: list[int]) -> Leaf:
        """What the piece at `place` made of the buffers that are `new` to change."""
        values: Leaf = [None] * len(self._places)
        for number in new:
            if self._before[number].is_floating_point():
                values[number] = self._after[place].get(number, self._before[number].clone())
        return values

    def watch(self, new: list[int]) -> None:
        """Take these for buffers that change."""
        self._moving |= {*new}

    def set(self, total: Leaf, num_pieces: int) -> None:
        """Take the mean over the pieces."""
        for buffer, value in zip(self._now(), total, strict=True):
            if value is not None:
                buffer.copy_(value / num_pieces)

    def _now(self) -> list[Tensor]:
        return [owner._buffers[name] for owner, name in self._places]


def _same_bits(a: Tensor, b: Tensor) -> bool:
    # Not of the values: NaN, which a constant may hold, equals nothing.
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


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
