"""The store of keys and values: shared cells merged with own ones, bins by length, moves; against plain attention."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reason_engine.engines.embedded.cells.attention import attend_part, attend_plainly
from reason_engine.engines.embedded.cells.prefixes import PrefixCache
from reason_engine.engines.embedded.cells.rows import KeyValues, Row, capacity
from reason_engine.engines.embedded.cells.shared import CHUNK, LEAST, SharedCells, SharedPrompts, shared_length
from reason_engine.engines.embedded.model.shape import Shape

CPU = torch.device("cpu")
SHAPE = Shape(
    "Qwen3ForCausalLM", layers=2, hidden=32, heads=6, kv_heads=2, head_dim=8, vocab=1000, context=4096, eps=1e-6,
    frequencies=(1.0,) * 4, rotary_scale=1.0, tied=True, dtype="float32",
)  # fmt: skip


@dataclass
class Path:
    """A row, and all that was ever written for it, (layers, length, 2 K, D)."""

    row: Row
    ids: list[int]
    kv: Tensor


class Model:
    """Rows with random keys, values and queries, and what plain attention over all of a row's cells gives."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.store = KeyValues(SHAPE, dtype, CPU)
        self.prompts = SharedPrompts(PrefixCache(10**9))
        self.dtype = dtype
        self.paths: list[Path] = []
        self._random = torch.Generator().manual_seed(0)

    def numbers(self, *size: int) -> Tensor:
        return torch.randn(size, generator=self._random).to(self.dtype)

    def kv(self, length: int) -> Tensor:
        return self.numbers(SHAPE.layers, length, 2 * SHAPE.kv_heads, SHAPE.head_dim)

    def begin(self, ids: list[int], kv: Tensor, count: int, shared: int) -> list[Path]:
        """Rows that begin alike, each with one token more."""
        common = self.prompts.open(0, ids, kv.clone(), shared) if shared else None
        made = [Path(Row(own := [*ids, 7], common), own, kv) for _ in range(count)]
        self.store.add([path.row for path in made], kv)
        self.paths += made
        return made

    def end(self, path: Path) -> None:
        self.store.remove(path.row)
        if path.row.shared is not None:
            self.prompts.leave(path.row.shared)
        self.paths.remove(path)

    def ordered(self) -> list[Path]:
        of = {path.row: path for path in self.paths}
        return [of[row] for row in self.store.rows]

    def step(self) -> None:
        """One token a row, right within rounding."""
        self.store.make_room(1)
        self.store.lay_out()
        self.store.open()
        paths = self.ordered()
        new = self.kv(len(paths))
        for layer in range(SHAPE.layers):
            q = self.numbers(len(paths), SHAPE.heads, SHAPE.head_dim)
            out = self.store.attend(layer, q, new[layer])
            for i, path in enumerate(paths):
                self.compare(out[i], q[i], torch.cat((path.kv[layer], new[layer, i : i + 1])))
        self.store.close()
        for i, path in enumerate(paths):
            path.kv = torch.cat((path.kv, new[:, i : i + 1]), 1)
            path.ids.append(7)

    def check(self, counts: list[int]) -> None:
        """So many new tokens a row; they are forgotten again."""
        self.store.make_room(max(counts))
        paths = self.ordered()
        attend, new = self.store.check(counts), self.kv(sum(counts))
        for layer in range(SHAPE.layers):
            q = self.numbers(sum(counts), SHAPE.heads, SHAPE.head_dim)
            out, at = attend(layer, q, new[layer]), 0
            for path, count in zip(paths, counts, strict=True):
                for i in range(count):
                    self.compare(out[at + i], q[at + i], torch.cat((path.kv[layer], new[layer, at : at + i + 1])))
                at += count

    def compare(self, out: Tensor, q_QD: Tensor, kv_L2KD: Tensor) -> None:
        both = kv_L2KD.float().transpose(0, 1).repeat_interleave(SHAPE.heads // SHAPE.kv_heads, 0)
        k, v = both[: SHAPE.heads], both[SHAPE.heads :]
        expected = F.scaled_dot_product_attention(q_QD.float()[:, None], k, v).flatten()
        atol = 1e-5 if self.dtype == torch.float32 else 0.03
        torch.testing.assert_close(out.float(), expected, atol=atol, rtol=1e-4)


def tokens(count: int, seed: int = 0) -> list[int]:
    return [random.Random(seed).randrange(100, 900) for _ in range(count)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.inference_mode()
def test_both_ways_of_attending_a_part_agree(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(3, 2, n, 8, generator=generator).to(dtype) for n in (5, 40, 40))
    mask = torch.zeros(3, 1, 1, 40, dtype=dtype)
    mask[1, ..., 30:] = float("-inf")
    for given in (None, mask):
        for one, other in zip(attend_part(q, k, v, given), attend_plainly(q, k, v, given), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5 if dtype == torch.float32 else 0.03, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.inference_mode()
def test_rows_of_all_kinds_side_by_side(dtype: torch.dtype) -> None:
    """Two requests with a common beginning, one without anything in common, rows that leave and that outgrow a bin."""
    model = Model(dtype)
    stem, kv = tokens(600), model.kv(600)
    model.begin(stem, kv, 5, shared_length(600))
    branch = [*stem[:530], *tokens(170, 1)]
    other = model.begin(branch, torch.cat((kv[:, :530], model.kv(170)), 1), 3, 700)
    model.begin(tokens(40, 2), model.kv(40), 2, 0)
    model.begin(tokens(300, 3), model.kv(300), 1, 0)
    assert [path.row.bin for path in model.ordered()] == [128] * 10 + [512]
    model.step()
    model.check([1, 3, 2, 1, 1, 4, 1, 1, 2, 1, 3])
    model.step()
    for path in (model.paths[1], other[0], model.paths[-2]):
        model.end(path)
    for _ in range(90):
        for path in model.paths:
            path.ids.append(7)
            path.kv = torch.cat((path.kv, model.kv(1)), 1)
        model.store.make_room(1)
        for path in model.paths:
            at = model.store._rows[path.row.bin].index(path.row)
            model.store._bins[path.row.bin].data[:, at, path.row.own - 1] = path.kv[:, -1]
    model.step()
    assert [path.row.bin for path in model.ordered()] == [128] * 6 + [256] + [512]
    model.check([2] * 8)
    for path in list(model.paths):
        model.end(path)
    assert model.prompts.prefixes.held == 0


@torch.inference_mode()
def test_the_chunks_of_a_prompt_are_the_same_whoever_shares_them() -> None:
    """Not a bit changes for a row when others read the same cells, all of them or some."""
    stem, q = tokens(700), torch.randn(12, SHAPE.heads, SHAPE.head_dim, generator=torch.Generator().manual_seed(5))
    outs: list[Tensor] = []
    for others in (0, 1, 11):
        model = Model(torch.bfloat16)
        kv = model.kv(700)
        if others == 11:
            model.begin([*stem[:600], 5], torch.cat((kv[:, :600], model.kv(1)), 1), 4, 512)
        model.begin(stem, kv, 1 + others % 10, 700)
        model.store.make_room(1)
        model.store.lay_out()
        model.store.open()
        paths = model.ordered()
        at = next(i for i, path in enumerate(paths) if len(path.ids) == 701)
        new = torch.full((len(paths), 2 * SHAPE.kv_heads, SHAPE.head_dim), 0.5, dtype=torch.bfloat16)
        queries = q[: len(paths)].to(torch.bfloat16).clone()
        queries[at] = q[0].to(torch.bfloat16)
        outs.append(model.store.attend(0, queries, new)[at])
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


def test_a_prompt_is_kept_once_and_a_path_costs_its_own_cells() -> None:
    model = Model()
    prompt, kv = tokens(1000), model.kv(1000)
    cell = model.store.cell_bytes
    for count in (4, 16):
        model.begin(prompt, kv, count, 1000)
        assert model.prompts.nbytes == 1000 * cell
    assert model.store.nbytes == 24 * 128 * cell
    chunks = {chunk.block for path in model.paths for chunk in shared(path).chunks}
    assert len(chunks) == 1


def test_a_long_row_does_not_size_the_others() -> None:
    model = Model()
    model.begin(tokens(20), model.kv(20), 8, 0)
    before = model.store.nbytes
    [long] = model.begin(tokens(2000), model.kv(2000), 1, 0)
    assert model.store.nbytes == before + 2048 * model.store.cell_bytes
    model.end(long)
    model.store.trim()
    assert model.store.nbytes == before == model.store.bytes_for(model.store.counts(1))
    for path in model.paths[:6]:
        model.end(path)
    model.store.trim()
    assert model.store.nbytes == before // 4


def test_cells_that_lie_in_pieces_are_put_together_once() -> None:
    """A child's prompt is its parent's and a step: what the tree holds in several blocks is one chunk for all rows."""
    model = Model()
    parent, kv = tokens(600), model.kv(700)
    cell = model.store.cell_bytes
    model.begin(parent, kv[:, :600], 2, 600)
    model.prompts.prefixes.add(0, [*parent, *tokens(99, 1)], kv[:, 600:699].clone(), start=600)
    child = [*parent, *tokens(99, 1), 5]
    groups = [model.begin(child, kv, 2, 700) for _ in range(2)]
    [first, second] = [shared(group[0]) for group in groups]
    assert [chunk.length for chunk in first.chunks] == [256, 256, 188]
    assert first.chunks == second.chunks
    assert first.chunks[:2] == shared(model.paths[0]).chunks[:2]
    assert model.prompts.nbytes == (600 + 188) * cell
    model.step()


def test_what_is_left_of_a_prompt_is_shared_when_it_is_enough() -> None:
    assert [shared_length(n) for n in (0, LEAST - 1, LEAST, CHUNK - 1)] == [0, 0, LEAST, CHUNK - 1]
    assert [shared_length(CHUNK + n) - CHUNK for n in (0, LEAST - 1, LEAST)] == [0, 0, LEAST]
    assert [capacity(n) for n in (0, 1, 128, 129, 300)] == [128, 128, 128, 256, 512]


def shared(path: Path) -> SharedCells:
    assert path.row.shared is not None
    return path.row.shared
