"""The sum of the pieces' gradients along one tree, whichever rank holds them.

Each rank gets its slice of all branches, joins them, and shares the result. That moves twice the
gradients' bytes, as an all-reduce does, where sending every piece to every rank would move
`num_pieces` times as many.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .pieces import Node, children, cover, inner_nodes, share
from .ranks import OneProcess, TorchRanks

Leaf = list[Tensor | None]
"""What a piece contributes: a tensor for each summand, or nothing."""
Form = tuple[torch.Size, torch.dtype]


class TreeSum:
    """Sums of lists of tensors over the pieces of all ranks, one after the other.

    On several ranks it keeps memory for about four times the gradients' bytes.
    """

    def __init__(self, num_pieces: int, ranks: OneProcess) -> None:
        self._root, self._ranks = (0, num_pieces), ranks
        self._inner = inner_nodes(self._root)
        self._stack: list[tuple[Node, Leaf]] = []
        self._forms: list[Form | None] = []
        self._flats: list[_Flat] = []

    def start(self) -> None:
        """Begin a sum; forget one that was not ended."""
        self._stack = []

    def add(self, piece: int, leaf: Leaf) -> None:
        """Add the next piece of this rank; its tensors are taken over. Complete branches are joined
        at once, so that no more than log2(num_pieces) + 1 are kept."""
        self._stack.append(((piece, piece + 1), leaf))
        while len(self._stack) > 1:
            (left, a), (right, b) = self._stack[-2:]
            if (left, right) not in self._inner:
                return
            self._stack[-2:] = [((left[0], right[1]), _join(a, b))]

    def total(
        self, numbers: list[Tensor], *, news: bool = False
    ) -> tuple[Leaf, list[Tensor], bool]:
        """The sum over all pieces, the same bits on every rank; the `numbers` of all ranks, as many
        float64 scalars for each piece; and whether any rank has `news`."""
        held, ranks = [leaf for _, leaf in self._stack], self._ranks
        if not isinstance(ranks, TorchRanks) or ranks.size == 1:
            return held[0], numbers, news
        every = zip(*held, strict=True)
        first = [next((t for t in same if t is not None), None) for same in every]
        forms = [None if tensor is None else (tensor.shape, tensor.dtype) for tensor in first]
        changed = forms != self._forms
        arrived = self._send_numbers(numbers, changed=changed, news=news)
        if not changed:  # while they travel, since it takes as long
            self._take_in(held)
        everybodys = arrived()
        if any(changed for changed, *_ in everybodys):
            self._forms = forms
            # A parameter that has no gradient here may have one elsewhere.
            shared = zip(*ranks.gather(forms), strict=True)
            self._plan([next(filter(None, same), None) for same in shared], first)
            self._take_in(held)
        result: Leaf = [None] * len(first)
        for flat in self._flats:
            flat.add_up(held[0], result)
        shared_numbers = [number for _, _, *others in everybodys for number in others]
        return result, shared_numbers, any(news for _, news, *_ in everybodys)

    def _take_in(self, held: Sequence[Leaf]) -> None:
        for flat in self._flats:
            flat.take_in(held)

    def _send_numbers(
        self, numbers: list[Tensor], *, changed: bool, news: bool
    ) -> Callable[[], list[list[Tensor]]]:
        # With them travels what all must know before the gradients do.
        ranks, num_pieces = self._ranks, self._root[1]
        shares = [len(share(num_pieces, rank, ranks.size)) for rank in range(ranks.size)]
        each = len(numbers) // shares[ranks.rank]
        mine = torch.zeros(2 + each * max(shares), dtype=torch.float64)
        mine[0], mine[1] = changed, news
        for place, number in enumerate(numbers, start=2):
            mine[place] = number
        arrived = ranks.send_numbers(mine)

        def rows() -> list[list[Tensor]]:
            all_rows = arrived().view(ranks.size, -1)
            return [[*row[: 2 + each * count]] for row, count in zip(all_rows, shares, strict=True)]

        return rows

    def _plan(self, forms: list[Form | None], tensors: Leaf) -> None:
        device = next(tensor.device for tensor in tensors if tensor is not None)
        kinds = sorted({form[1] for form in forms if form}, key=str)
        self._flats = [_Flat(kind, forms, device, self._root, self._ranks) for kind in kinds]


class _Flat:
    """All tensors of one dtype, one after the other, and how they travel."""

    def __init__(
        self,
        dtype: torch.dtype,
        forms: list[Form | None],
        device: torch.device,
        root: Node,
        ranks: TorchRanks,
    ) -> None:
        self._root, self._ranks = root, ranks
        self._places = [i for i, form in enumerate(forms) if form and form[1] == dtype]
        self._shapes = [forms[i][0] for i in self._places]
        self._nodes = [cover(root, share(root[1], rank, ranks.size)) for rank in range(ranks.size)]
        sizes = [shape.numel() for shape in self._shapes]
        width = -(-sum(sizes) // ranks.size)
        length = width * ranks.size

        def new(size: int) -> Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        def views(flat: Tensor) -> list[Tensor]:
            parts = flat[: sum(sizes)].split(sizes)
            return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

        self._branches = [new(length) for _ in self._nodes[ranks.rank]]
        self._inbox = [
            new(width * len(nodes) if rank != ranks.rank else 0)
            for rank, nodes in enumerate(self._nodes)
        ]
        self._whole = new(length)
        self._into = [views(flat) for flat in self._branches]
        self._out = views(self._whole)

    def take_in(self, held: Sequence[Leaf]) -> None:
        """Copy the branches that are `held` here to where they travel from."""
        for leaf, views in zip(held, self._into, strict=True):
            own = [leaf[i] for i in self._places]
            there = [(view, t) for view, t in zip(views, own, strict=True) if t is not None]
            if there:
                torch._foreach_copy_([view for view, _ in there], [tensor for _, tensor in there])
            for view, tensor in zip(views, own, strict=True):
                if tensor is None:
                    view.fill_(-0.0)  # to which anything can be added without a change of bits

    def add_up(self, held: Leaf, result: Leaf) -> None:
        """Write the sum over all ranks of what was taken in into `result`, in the memory of the
        tensors `held`, where there are some."""
        ranks, branches = self._ranks, [each.view(self._ranks.size, -1) for each in self._branches]
        # To each rank its slice of all branches.
        slices = [branches[0][r] for r in range(ranks.size)]
        if len(branches) > 1:
            slices = [torch.cat([each[r] for each in branches]) for r in range(ranks.size)]
        ranks.swap(slices, self._inbox)
        have: dict[Node, Tensor] = {}
        for rank, nodes in enumerate(self._nodes):
            sent = slices[rank] if rank == ranks.rank else self._inbox[rank]
            have.update(zip(nodes, sent.chunk(len(nodes)), strict=True))
        parts = [*self._whole.view(ranks.size, -1)]
        left, right = children(self._root)
        torch.add(_joined(left, have), _joined(right, have), out=parts[ranks.rank])
        ranks.swap([parts[ranks.rank]] * ranks.size, parts)
        # In memory of its own: the alignment of a view can change bits on a GPU.
        for place, view in zip(self._places, self._out, strict=True):
            result[place] = held[place] if held[place] is not None else view.clone()
        torch._foreach_copy_([result[place] for place in self._places], self._out)


def _joined(node: Node, have: dict[Node, Tensor]) -> Tensor:
    if node in have:
        return have[node]
    left, right = children(node)
    return _joined(left, have).add_(_joined(right, have))


def _join(a: Leaf, b: Leaf) -> Leaf:
    both = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if not (x is None or y is None)]
    if both:
        torch._foreach_add_([a[i] for i in both], [b[i] for i in both])
    return [y if x is None else x for x, y in zip(a, b, strict=True)]
