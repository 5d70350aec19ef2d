"""The radix tree of the prefix cache: what it finds, how edges are cut, what is evicted and what is held."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from reason_engine.engines.embedded.cells.prefixes import PrefixCache

CELL = 2 * 2 * 3 * 4
"""Bytes of one: two layers, one key head and three numbers each."""


def cells(ids: Sequence[int], start: int = 0) -> Tensor:
    """What a model would keep of these tokens: numbers that tell a token and all before it."""
    sums = torch.tensor(ids, dtype=torch.float32).cumsum(0)[start:]
    return sums.view(1, -1, 1, 1).expand(2, -1, 2, 3).clone()


def found(cache: PrefixCache, ids: Sequence[int], space: object = 0) -> int:
    """How much of it is known; its cells must be the right ones."""
    pieces, shared = cache.find(space, ids)
    assert sum(piece.shape[1] for piece in pieces) == shared
    if pieces:
        torch.testing.assert_close(torch.cat(pieces, 1), cells(ids)[:, :shared])
    return shared


def test_a_prefix_ends_anywhere_in_an_edge() -> None:
    cache = PrefixCache(10_000)
    ids = list(range(1, 31))
    cache.add(0, ids, cells(ids))
    for length in (8, 9, 29, 30):
        assert found(cache, [*ids[:length], 99, 98]) == length
    assert found(cache, ids[:7]) == 0
    assert found(cache, [99, *ids]) == 0
    assert found(cache, ids, space="another") == 0


def test_a_branch_cuts_the_edge_and_keeps_the_common_cells_once() -> None:
    cache = PrefixCache(10_000)
    stem = list(range(1, 21))
    one, other, third = [*stem, 40, 41, 42], [*stem, 50, 51], [*stem[:12], 60]
    for ids in (one, other, third, other):
        cache.add(0, ids, cells(ids))
    assert [found(cache, ids) for ids in (one, other, third)] == [23, 22, 13]
    assert cache.used == (20 + 3 + 2 + 1) * CELL
    assert [piece.shape[1] for piece in cache.find(0, other)[0]] == [12, 8, 2]


def test_the_end_of_a_sequence_is_added_to_its_beginning() -> None:
    cache = PrefixCache(10_000)
    ids = list(range(1, 31))
    cache.add(0, ids, cells(ids, 10), start=10)
    assert found(cache, ids) == 0
    cache.add(0, ids[:12], cells(ids[:12]))
    cache.add(0, ids, cells(ids, 10), start=10)
    assert found(cache, ids) == 30
    assert cache.used == 30 * CELL
    with pytest.raises(AssertionError, match="20 cells for 30 tokens"):
        cache.add(0, ids, cells(ids, 10))


def test_the_least_recently_used_goes_first_and_leaves_before_stems() -> None:
    cache = PrefixCache(32 * CELL)
    stem = list(range(1, 11))
    paths = [[*stem, first, first + 1, first + 2, first + 3] for first in (20, 30, 40, 50, 60)]
    for ids in paths[:3]:
        cache.add(0, ids, cells(ids))
    assert found(cache, paths[0]) == 14
    for ids in paths[3:]:
        cache.add(0, ids, cells(ids))
    assert cache.used == 30 * CELL
    cache.add(0, [9] * 12, cells([9] * 12))
    assert cache.used <= cache.limit
    assert [found(cache, ids) for ids in paths] == [10, 10, 10, 14, 14]
    assert found(cache, [9] * 12) == 12


def test_the_lower_part_of_an_edge_gives_its_bytes_back() -> None:
    cache = PrefixCache(60 * CELL)
    long, branch = list(range(1, 31)), [*range(1, 11), 90, 91]
    cache.add(0, long, cells(long))
    cache.add(0, branch, cells(branch))
    kept = cache.find(0, branch)[0][0]
    before = cache.version
    cache.add(0, [7] * 29, cells([7] * 29))
    assert found(cache, long) == 10
    assert found(cache, branch) == 12
    assert cache.used == (10 + 2 + 29) * CELL
    assert cache.version == before + 1
    assert cache.find(0, branch)[0][0].untyped_storage().nbytes() == 10 * CELL
    assert kept.untyped_storage().nbytes() == 30 * CELL


def test_what_is_held_stays_with_all_above_it() -> None:
    cache = PrefixCache(24 * CELL)
    stem = list(range(1, 21))
    node = cache.hold(0, stem, cells(stem))
    assert (cache.held, cache.used) == (20 * CELL, 20 * CELL)
    child = [*stem, 30, 31, 32]
    lower = cache.hold(0, child, cells(child))
    cache.add(0, [5] * 12, cells([5] * 12))
    cache.add(0, [6] * 12, cells([6] * 12))
    assert found(cache, child) == 23
    cache.release(node)
    assert cache.held == 23 * CELL
    branch = [*stem[:9], 50]
    cache.add(0, branch, cells(branch))
    cache.shrink(0)
    assert cache.used == cache.held == 23 * CELL
    assert found(cache, child) == 23
    cache.release(lower)
    assert (cache.held, cache.used) == (0, 23 * CELL)
    cache.shrink(12 * CELL)
    assert cache.used == found(cache, child) * CELL == 9 * CELL


def test_too_little_and_too_much_are_not_kept() -> None:
    cache = PrefixCache(20 * CELL)
    for count in (7, 11):
        cache.add(0, [1] * count, cells([1] * count))
        assert cache.used == 0
    cache.add(0, [1] * 10, cells([1] * 10))
    assert cache.used == 10 * CELL
    cache.clear()
    assert (cache.used, found(cache, [1] * 10)) == (0, 0)


def test_whatever_comes_the_bytes_are_counted_and_the_cells_are_right() -> None:
    rng, cache = random.Random(1), PrefixCache(60 * CELL)
    held = []
    for turn in range(600):
        ids = [rng.randrange(2) for _ in range(rng.randrange(8, 26))]
        found(cache, ids)
        if rng.random() < 0.2:
            held.append(cache.hold(0, ids, cells(ids)))
        else:
            cache.add(0, ids, cells(ids))
        if held and rng.random() < 0.25:
            cache.release(held.pop(rng.randrange(len(held))))
        assert cache.used - cache.held <= cache.limit
        nodes = [cache._roots[0]] if cache._roots else []
        blocks, total = set[Tensor](), 0
        for node in nodes:
            nodes += node.children.values()
            if node.block is not None:
                blocks.add(node.block.data)
                total += node.nbytes
        assert total == cache.used == sum(block.nbytes for block in blocks), turn
