"""Sums in a fixed binary tree over leaves 0 … A−1, whoever computes them: equal bits on any number of ranks.

    T(a, b) = T(a, m) + T(m, b),   m = a + the largest power of two below b − a          T(a, a + 1) = leaf a

A node is a range (a, b) of leaves that occurs in this tree. Sums are pushed in the order of their leaves; neighbours
are added as soon as, and only when, their union is a node: so the same additions are made from the same numbers,
however the leaves are dealt out (docs/derivations/reduction.md). Addition commutes to the bit; it does not associate.
"""

from __future__ import annotations

from functools import cache

from torch import Tensor

Node = tuple[int, int]


@cache
def tree(count: int) -> frozenset[Node]:
    """All nodes over `count` leaves: 2·count − 1 of them."""
    found: set[Node] = set()
    open_ = [(0, count)]
    while open_:
        a, b = open_.pop()
        found.add((a, b))
        if b - a > 1:
            middle = a + (1 << ((b - a - 1).bit_length() - 1))
            open_ += [(a, middle), (middle, b)]
    return frozenset(found)


def leaves(rank: int, size: int, count: int, *, in_turn: bool = False) -> range:
    """The leaves of a rank, size ≤ count: neighbours, or, in turn, every `size`-th."""
    if in_turn:
        return range(rank, count, size)
    return range(rank * count // size, (rank + 1) * count // size)


def remaining(own: range, count: int) -> list[Node]:
    """What is left of these neighbouring leaves when everything that can be added was: the largest nodes among them."""
    stack: list[Node] = []
    for leaf in own:
        stack = pushed(stack, (leaf, leaf + 1), count)
    return stack


def pushed(stack: list[Node], node: Node, count: int) -> list[Node]:
    """The nodes that are left when `node`, right behind those of the stack, was pushed."""
    stack = list(stack)
    while stack and (stack[-1][0], node[1]) in tree(count):
        node = (stack.pop()[0], node[1])
    return [*stack, node]


def depth(own: range, count: int) -> int:
    """The most sums that wait at a time while these leaves are pushed in their order."""
    most, stack = 0, list[Node]()
    for leaf in own:
        stack = pushed(stack, (leaf, leaf + 1), count)
        most = max(most, len(stack))
    return most


class Pushed:
    """The sums that wait for their neighbours, and their memory.

    levels: at least `depth` tensors of one shape.  count: the leaves of the whole tree.
    """

    def __init__(self, levels: list[Tensor], count: int) -> None:
        self._levels, self._count = levels, count
        self.nodes: list[Node] = []

    def join(self, node: Node, value: Tensor) -> Node:
        """Add to `value`, the sum of `node`, what waits for it; the node that it is the sum of then."""
        while self.nodes and (self.nodes[-1][0], node[1]) in tree(self._count):
            first, _ = self.nodes.pop()
            value.add_(self._levels[len(self.nodes)])
            node = (first, node[1])
        return node

    def push(self, node: Node, value: Tensor) -> None:
        """Join, and keep a copy. What `value` holds is lost."""
        node = self.join(node, value)
        self._levels[len(self.nodes)].copy_(value)
        self.nodes.append(node)

    def kept(self) -> list[tuple[Node, Tensor]]:
        """The nodes that wait, and their sums."""
        return list(zip(self.nodes, self._levels, strict=False))

    def clear(self) -> None:
        """Forget all sums: a new step."""
        self.nodes = []
