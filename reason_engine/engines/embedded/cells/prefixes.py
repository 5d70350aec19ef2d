"""The prefix cache: a radix tree over the tokens that were seen, each edge with its keys and values, kept once.

RadixAttention (Zheng et al. 2024, arXiv:2312.07104, section 3), with evictions by least recent use from the leaves. A
root stands for a space (weights version and adapter), so that a change of either finds nothing. What running rows read
is held, together with all above it, and is not evicted; the limit is for the rest.

An edge's cells are a range of a block. Cutting an edge in two copies nothing: both go on as ranges of one block, which
is cut to what is left of it when the lower one is evicted.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from operator import eq

from torch import Tensor

FEWEST = 8
"""Tokens below which a sequence is not worth keeping."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Block:
    """Keys and values of successive tokens, (layers, length, 2 K, D)."""

    data: Tensor


@dataclass(slots=True, eq=False)
class Node:
    """An edge of the tree and what hangs below it. Its cells are those of `block` from `start` on, one a token."""

    ids: tuple[int, ...]
    block: Block | None
    start: int = 0
    parent: Node | None = None
    children: dict[int, Node] = field(default_factory=dict[int, "Node"])
    """By the first token of their edge."""
    holders: int = 0

    @property
    def cells(self) -> Tensor:
        assert self.block is not None
        return self.block.data[:, self.start : self.start + len(self.ids)]

    @property
    def nbytes(self) -> int:
        return self.cells.nbytes

    def chain(self) -> Iterator[Node]:
        """It and all above it, the root excepted."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


class PrefixCache:
    """Keys and values of sequences seen before, found by their tokens. `limit` bounds the bytes that nobody holds.

    `version` counts the times that a block was cut, when views of it must be taken anew."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit = limit_bytes
        self.version = 0
        self.used = self.held = 0
        self._roots: dict[Hashable, Node] = {}
        self._idle: dict[Node, None] = {}
        """Nodes that nobody holds, least recently used first; every node comes before the one above it."""

    def find(self, space: Hashable, ids: Sequence[int]) -> tuple[list[Tensor], int]:
        """The longest known prefix of `ids`: its cells in pieces, (layers, length, 2 K, D) each, and their number."""
        path, shared = self._walk(space, tuple(ids))
        if shared < FEWEST:
            return [], 0
        self._touch(path[-1][0])
        return [node.cells[:, :taken] for node, taken in path], shared

    def add(self, space: Hashable, ids: Sequence[int], kv: Tensor, start: int = 0) -> None:
        """Keep the cells of these tokens from `start` on, unless they are too large or too few, or those before
        `start` are gone. The tensor belongs to the cache from now on."""
        if len(ids) >= FEWEST and kv.nbytes <= self.limit // 2:
            self._insert(space, tuple(ids), kv, start)
            self._evict()

    def hold(self, space: Hashable, ids: Sequence[int], kv: Tensor) -> Node:
        """Keep the cells of all these tokens, whatever their size, until their node is let go of."""
        node = self._insert(space, tuple(ids), kv, 0)
        assert node is not None
        self.hold_node(node)
        self._evict()
        return node

    def hold_node(self, node: Node) -> None:
        """Hold a node once more."""
        for one in node.chain():
            if one.holders == 0:
                del self._idle[one]
                self.held += one.nbytes
            one.holders += 1

    def release(self, node: Node) -> None:
        """Let go of a node: the opposite of one `hold`."""
        for one in node.chain():
            one.holders -= 1
            if one.holders == 0:
                self.held -= one.nbytes
                self._idle[one] = None
        self._evict()

    def shrink(self, most_bytes: int) -> None:
        """Of what nobody holds, keep no more than that for now."""
        self._evict(most_bytes)

    def clear(self) -> None:
        """Forget everything. Nothing may be held."""
        self._roots.clear()
        self._idle.clear()
        self.used = self.held = 0

    def _walk(self, space: Hashable, ids: tuple[int, ...]) -> tuple[list[tuple[Node, int]], int]:
        """The nodes that `ids` lead through, with how many tokens of each are theirs, and the sum."""
        node, path, at = self._roots.get(space), list[tuple[Node, int]](), 0
        while node is not None and at < len(ids) and (child := node.children.get(ids[at])) is not None:
            edge = child.ids
            whole = ids[at : at + len(edge)] == edge
            taken = len(edge) if whole else sum(takewhile(bool, map(eq, edge, ids[at:])))
            path.append((child, taken))
            at += taken
            node = child if whole else None
        return path, at

    def _insert(self, space: Hashable, ids: tuple[int, ...], kv: Tensor, start: int) -> Node | None:
        """The node where `ids` end; None where cells are missing before `start`."""
        assert kv.shape[1] == len(ids) - start, f"{kv.shape[1]} cells for {len(ids) - start} tokens"
        path, known = self._walk(space, ids)
        if known < start or not ids:
            return None
        node = self._roots.setdefault(space, Node((), None)) if not path else path[-1][0]
        if path and path[-1][1] < len(node.ids):
            node = self._cut(node, path[-1][1])
        if known < len(ids):
            block = Block(kv if known == start else kv[:, known - start :].clone())
            child = Node(ids[known:], block, 0, node)
            node.children[ids[known]] = child
            self._idle[child] = None
            self.used += child.nbytes
            node = child
        self._touch(node)
        return node

    def _cut(self, node: Node, at: int) -> Node:
        """Cut an edge in two; the upper part, which is new. Whoever holds the node holds both."""
        assert node.parent is not None
        upper = Node(node.ids[:at], node.block, node.start, node.parent, {node.ids[at]: node}, node.holders)
        node.parent.children[upper.ids[0]] = upper
        node.ids, node.start, node.parent = node.ids[at:], node.start + at, upper
        if upper.holders == 0:
            self._idle[upper] = None
        return upper

    def _touch(self, node: Node) -> None:
        """It and all above it were used just now."""
        for one in node.chain():
            if one.holders == 0:
                self._idle.pop(one, None)
                self._idle[one] = None

    def _evict(self, most_bytes: int | None = None) -> None:
        most = self.limit if most_bytes is None else min(self.limit, most_bytes)
        while self._idle and self.used - self.held > most:
            node = next(iter(self._idle))
            del self._idle[node]
            self.used -= node.nbytes
            parent, block = node.parent, node.block
            assert parent is not None
            assert block is not None
            assert not node.children
            del parent.children[node.ids[0]]
            if node.start:
                block.data = block.data[:, : node.start].clone()
                self.version += 1
            if not parent.children and parent.parent is None:
                self._roots = {space: root for space, root in self._roots.items() if root.children}
