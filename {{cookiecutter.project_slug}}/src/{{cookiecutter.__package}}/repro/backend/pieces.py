"""The pieces of a global batch and the order in which they are added: no torch, no processes.

A batch is cut into a fixed number of pieces, however many processes share the work. Sums over the
pieces follow one binary tree, so their bits depend on the number of pieces only. A process holds
neighbouring pieces, so that it can add up whole branches of the tree by itself.
"""

from collections.abc import Sequence

Node = tuple[int, int]
"""Pieces `first` to `last - 1`: a node of the tree."""


def share(num_pieces: int, rank: int, size: int) -> range:
    """The pieces of a rank: neighbours, as many as any other rank's, or one fewer."""
    return range(rank * num_pieces // size, (rank + 1) * num_pieces // size)


def middle(node: Node) -> int:
    """Where a node of several pieces is split: after the largest power of two below its size."""
    first, last = node
    return first + (1 << (last - first - 1).bit_length() - 1)


def inner_nodes(root: Node) -> set[tuple[Node, Node]]:
    """The two children of every node that has some."""
    if root[1] - root[0] == 1:
        return set()
    left, right = children(root)
    return {(left, right)} | inner_nodes(left) | inner_nodes(right)


def children(node: Node) -> tuple[Node, Node]:
    """The two halves of a node of several pieces."""
    mid = middle(node)
    return (node[0], mid), (mid, node[1])


def cover(root: Node, pieces: Sequence[int]) -> list[Node]:
    """The largest nodes below `root` that make up neighbouring `pieces`, from left to right."""
    first, last = root
    if pieces[-1] < first or last <= pieces[0]:
        return []
    if pieces[0] <= first and last <= pieces[-1] + 1:
        return [root]
    left, right = children(root)
    return cover(left, pieces) + cover(right, pieces)
