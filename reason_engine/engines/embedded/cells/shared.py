"""Cells of a prompt that many rows read: kept once and attended once for all of them.

Hydragen (Juravsky et al. 2024, arXiv:2402.05099, section 3) and cascade inference (Ye et al. 2024, FlashInfer): the
queries of all rows that share cells are one block of queries over them, a product of matrices in place of many of a
vector, and what a row finds there is merged with what it finds in its own cells.

Departures: a prompt is attended in chunks of a fixed size, and chunks are merged in order. Which rows share which
chunks then changes nothing for any of them: how a row's cells are divided, and so how sums are rounded, depends on its
own prompt alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from reason_engine.engines.embedded.cells.attention import attend_part
from reason_engine.engines.embedded.cells.prefixes import Block, Node, PrefixCache
from reason_engine.engines.embedded.model.shape import Shape

CHUNK, LEAST = 256, 64
"""Cells of a chunk, and of the last one at least: fewer are copied into every row."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Cells of a block."""

    block: Block
    offset: int
    length: int


@dataclass(slots=True, eq=False)
class SharedCells:
    """The first `length` cells of a request's rows, in chunks. `users` rows read them; `node` is held for them."""

    length: int
    chunks: tuple[Chunk, ...]
    node: Node | None = None
    users: int = 0


class SharedPrompts:
    """Prompts that rows share, as chunks of what the prefix cache keeps.

    A chunk whose cells lie in several blocks of the cache is put together once, and shared too while rows use it.
    """

    def __init__(self, prefixes: PrefixCache) -> None:
        self.prefixes = prefixes
        self._gathered: WeakValueDictionary[tuple[Hashable, tuple[int, ...]], Block] = WeakValueDictionary()

    @property
    def nbytes(self) -> int:
        """Bytes that rows need here: what is held, and what was put together."""
        return self.prefixes.held + sum(block.data.nbytes for block in self._gathered.values())

    def open(self, space: Hashable, ids: Sequence[int], kv: Tensor, length: int) -> SharedCells:
        """Share the first `length` cells of these tokens, all of whose keys and values are given."""
        ids = tuple(ids)
        node = self.prefixes.hold(space, ids, kv)
        path = list(node.chain())[::-1]
        chunks, last = list[Chunk](), None
        for start in range(0, length, CHUNK):
            stop = min(start + CHUNK, length)
            found = _lies_in(path, start, stop)
            if found is None:
                block = self._gathered.get((space, ids[:stop]))
                if block is None:
                    block = self._gathered[space, ids[:stop]] = Block(kv[:, start:stop].clone())
                chunks.append(Chunk(block, 0, stop - start))
            else:
                last, offset = found
                assert last.block is not None
                chunks.append(Chunk(last.block, offset, stop - start))
        if last is not None:
            self.prefixes.hold_node(last)
        self.prefixes.release(node)
        return SharedCells(length, tuple(chunks), last)

    def leave(self, shared: SharedCells) -> None:
        """A row that used them goes."""
        shared.users -= 1
        if shared.users == 0 and shared.node is not None:
            self.prefixes.release(shared.node)


def shared_length(prompt: int) -> int:
    """How many cells of a prompt are shared, if any are: whole chunks, and what is left if it is enough."""
    rest = prompt % CHUNK
    return prompt if rest >= LEAST else prompt - rest


def _lies_in(path: Sequence[Node], start: int, stop: int) -> tuple[Node, int] | None:
    """The node in which the cells from `start` to `stop` end, and where in its block they begin; None where they lie
    in several blocks."""
    at, block, offset = 0, None, 0
    for node in path:
        if at <= start < at + len(node.ids):
            block, offset = node.block, node.start + start - at
        elif block is not None and node.block is not block:
            return None
        at += len(node.ids)
        if block is not None and stop <= at:
            return node, offset
    return None


@dataclass(slots=True)
class _Call:
    """Successive chunks of a block, (C, K, length, D) a layer, and the queries for them: a range, or their numbers."""

    first: int
    count: int
    queries: slice | Tensor
    k: Sequence[Tensor]
    v: Sequence[Tensor]


class SharedAttention:
    """Attention of some rows' queries over the chunks they share. `counts`: how many queries each row has."""

    def __init__(
        self, shape: Shape, rows: Sequence[SharedCells | None], counts: Sequence[int], device: torch.device
    ) -> None:
        self.keys, self.group = shape.kv_heads, shape.heads // shape.kv_heads
        self._calls = _calls(rows, counts, shape, device)
        parts = 1 + max((len(one.chunks) for one in rows if one is not None), default=0)
        size = (parts, sum(counts), self.keys, self.group)
        self._sums = torch.full(size, float("-inf"), device=device)
        self._own_sums = self._sums[0]
        self._into = [
            self._sums[call.first : call.first + call.count, call.queries] if isinstance(call.queries, slice) else None
            for call in self._calls
        ]

    def merge(self, layer: int, q_NQD: Tensor, own_NKGD: Tensor, sums_NKG: Tensor) -> Tensor:
        """(N, Q D), given what the queries found in their rows' own cells."""
        sums, found = self._sums, list[Tensor]()
        self._own_sums.copy_(sums_NKG)
        for call, into in zip(self._calls, self._into, strict=True):
            at = call.queries
            q = q_NQD[at].unflatten(1, (self.keys, self.group)).transpose(0, 1).flatten(1, 2)
            out, own = attend_part(q.expand(call.count, -1, -1, -1), call.k[layer], call.v[layer])
            own = own.unflatten(2, (-1, self.group)).transpose(1, 2)
            if into is None:
                sums[call.first : call.first + call.count, at] = own
            else:
                into.copy_(own)
            found.append(out.unflatten(2, (-1, self.group)).transpose(1, 2))
        weights = sums.softmax(0).unsqueeze(-1)
        total = own_NKGD * weights[0]
        for call, out in zip(self._calls, found, strict=True):
            parts = out * weights[call.first : call.first + call.count, call.queries]
            for part in parts.unbind(0):
                if isinstance(call.queries, slice):
                    total[call.queries] += part
                else:
                    total.index_add_(0, call.queries, part)
        return total.to(q_NQD.dtype).flatten(1)


def _calls(
    rows: Sequence[SharedCells | None], counts: Sequence[int], shape: Shape, device: torch.device
) -> list[_Call]:
    """Every chunk with all its readers; successive ones of a block with the same readers go together."""
    readers: dict[Chunk, tuple[int, list[int]]] = {}
    at = 0
    for shared, count in zip(rows, counts, strict=True):
        for number, chunk in enumerate(shared.chunks if shared is not None else ()):
            readers.setdefault(chunk, (number, []))[1].extend(range(at, at + count))
        at += count
    joined: list[tuple[Chunk, int, int, list[int]]] = []
    for chunk, (number, queries) in readers.items():
        if joined:
            first, start, count, same = joined[-1]
            follows = chunk.block is first.block and chunk.offset == first.offset + count * CHUNK
            if follows and number == start + count and chunk.length == CHUNK and queries == same:
                joined[-1] = (first, start, count + 1, same)
                continue
        joined.append((chunk, number, 1, queries))
    return [_call(*one, shape, device) for one in joined]


def _call(chunk: Chunk, number: int, count: int, queries: list[int], shape: Shape, device: torch.device) -> _Call:
    data = chunk.block.data[:, chunk.offset : chunk.offset + count * chunk.length]
    both = data.unflatten(1, (count, chunk.length)).transpose(2, 3)
    k, v = both[:, :, : shape.kv_heads].unbind(0), both[:, :, shape.kv_heads :].unbind(0)
    whole = queries[-1] - queries[0] + 1 == len(queries)
    at = slice(queries[0], queries[-1] + 1) if whole else torch.tensor(queries, device=device)
    return _Call(1 + number, count, at, k, v)
