"""Gradients of a batch in pieces: the same bits on any number of processes.

A piece's gradient depends on the weights, its samples and its own random stream. `TreeSum` adds the
pieces in a fixed order, whoever holds them.

The order of additions is all that keeps a sum of gradients from being the same for any number of
processes; EasyScale (Li et al., SC 2023) and MosaicML's streaming fix the order of samples only.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..config.base import Distributed
from .pieces import Node, children, cover, inner_nodes, share
from .ranks import OneProcess, TorchRanks

Leaf = list[Tensor | None]
"""What a piece contributes: a tensor for each summand, or nothing."""
Form = tuple[torch.Size, torch.dtype]


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

    def loss(self) -> Tensor | float:
        """The mean loss of the batch."""
        if self._share == 1:
            return self._losses[0]
        return _in_order(loss.item() for loss in self._losses)

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
        self._total = 0.0

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
        tree = TreeSum(self.num_pieces, self._ranks)
        for place, piece in enumerate(self.pieces):
            for parameter in parameters:
                parameter.grad = None
            statistics.reset()
            seed(piece)
            for number, part in enumerate(parts, start=1):
                yield _slice(part, place, len(self.pieces))
                self._check(place * len(parts) + number)
            tree.add(piece, [parameter.grad for parameter in parameters] + statistics.moved())
        losses = torch.stack(self._losses).double().tolist()
        everywhere = self._ranks.gather((losses, tree.forms(), statistics.found()))
        total = tree.total([forms for _, forms, _ in everywhere])
        for parameter, before, gradient in zip(parameters, kept, total, strict=False):
            parameter.grad = gradient if before is None or gradient is None else before + gradient
        statistics.set([*total[len(parameters) :]], self.num_pieces)
        if new := sorted(set().union(*(found for *_, found in everywhere))):
            tree = TreeSum(self.num_pieces, self._ranks)
            for place, piece in enumerate(self.pieces):
                tree.add(piece, statistics.first_time(place, new))
            statistics.set(tree.total(self._ranks.gather(tree.forms())), self.num_pieces)
            statistics.watch(new)
        self._total = _in_order(loss for losses, *_ in everywhere for loss in losses)
        self.whole = True

    def loss(self) -> float:
        return self._total


def _in_order(numbers: Iterable[float]) -> float:
    # Not `sum`, which Python 3.12 and later round in another way.
    total = 0.0
    for number in numbers:
        total += number
    return total


class TreeSum:
    """The sum of lists of tensors over the pieces of all ranks, along one tree."""

    def __init__(self, num_pieces: int, ranks: OneProcess) -> None:
        self._root, self._ranks = (0, num_pieces), ranks
        self._inner = inner_nodes(self._root)
        self._stack: list[tuple[Node, Leaf]] = []

    def add(self, piece: int, leaf: Leaf) -> None:
        """Add the next piece of this rank; its tensors are taken over. Complete branches are joined
        at once, so that no more than log2(num_pieces) + 1 are kept."""
        self._stack.append(((piece, piece + 1), leaf))
        while len(self._stack) > 1:
            (left, a), (right, b) = self._stack[-2:]
            if (left, right) not in self._inner:
                return
            self._stack[-2:] = [((left[0], right[1]), _join(a, b))]

    def forms(self) -> list[Form | None]:
        """Shape and dtype of each summand that a piece of this rank has."""
        every = zip(*(leaf for _, leaf in self._stack), strict=True)
        first = (next((t for t in same if t is not None), None) for same in every)
        return [None if tensor is None else (tensor.shape, tensor.dtype) for tensor in first]

    def total(self, everywhere: Sequence[list[Form | None]]) -> Leaf:
        """The sum over all pieces, the same bits on every rank; `everywhere` are their `forms`."""
        if isinstance(self._ranks, TorchRanks) and self._ranks.size > 1:
            # A parameter that has no gradient here may have one elsewhere.
            forms = [next(filter(None, same), None) for same in zip(*everywhere, strict=True)]
            return _exchanged(self._root, self._stack, forms, self._ranks)
        ((_, total),) = self._stack
        return total


def _exchanged(
    root: Node, held: list[tuple[Node, Leaf]], forms: list[Form | None], ranks: TorchRanks
) -> Leaf:
    """End the tree: each rank gets its slice of all branches, joins them, and shares the result.

    That moves twice the gradients' bytes, as an all-reduce does, where sending every piece to every
    rank would move `num_pieces` times as many.
    """
    num_pieces, size = root[1], ranks.size
    nodes = [cover(root, share(num_pieces, rank, size)) for rank in range(size)]
    mine = held[0][1]
    result: Leaf = [None] * len(mine)
    for dtype in sorted({form[1] for form in forms if form}, key=str):
        chosen = [i for i, form in enumerate(forms) if form and form[1] == dtype]
        sizes = [forms[i][0].numel() for i in chosen]
        length = -(-sum(sizes) // size) * size
        # Every rank has some piece, whose tensors are where those of this run are.
        device = next(t.device for _, leaf in held for t in leaf if t is not None)
        like = torch.empty(0, dtype=dtype, device=device)
        flat = [_flat([leaf[i] for i in chosen], sizes, length, like) for _, leaf in held]
        width = length // size
        parts = [torch.cat([f[r * width : (r + 1) * width] for f in flat]) for r in range(size)]
        counts = [len(each) * width * flat[0].element_size() for each in nodes]
        inbox = ranks.exchange(parts, counts).to(device).view(dtype)
        names = [node for each in nodes for node in each]
        own = _joined(root, dict(zip(names, inbox.split(width), strict=True)))
        whole = ranks.collect(own).to(device).view(dtype)
        for i, piece in zip(chosen, whole[: sum(sizes)].split(sizes), strict=True):
            # In memory of its own: the alignment of a view can change bits on a GPU.
            shape, own = forms[i][0], mine[i]
            target = torch.empty(shape, dtype=dtype, device=device) if own is None else own
            result[i] = target.copy_(piece.view(shape))
    return result


def _flat(tensors: Leaf, sizes: list[int], length: int, like: Tensor) -> Tensor:
    # To a negative zero anything can be added without a change of bits.
    flat = like.new_full((length,), -0.0)
    for target, tensor in zip(flat[: sum(sizes)].split(sizes), tensors, strict=True):
        if tensor is not None:
            target.copy_(tensor.reshape(-1))
    return flat


def _joined(node: Node, have: dict[Node, Tensor]) -> Tensor:
    if node in have:
        return have[node]
    left, right = children(node)
    return _joined(left, have).add_(_joined(right, have))


def _join(a: Leaf, b: Leaf) -> Leaf:
    return [y if x is None else x if y is None else x.add_(y) for x, y in zip(a, b, strict=True)]


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
