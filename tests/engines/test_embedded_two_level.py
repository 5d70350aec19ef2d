"""Searches over a large vocabulary against the plain ones, and draws from it, truncated or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reason_engine.engines.embedded.sampling import two_level
from reason_engine.engines.embedded.sampling.sampler import Sampler
from reason_engine.engines.embedded.sampling.streams import rng_streams, rng_uniforms
from reason_engine.errors import EngineDead
from reason_engine.types import Sampling

CPU = torch.device("cpu")
SIZES = (100, 1280, 20_000, 20_001)


def numbers(rows: int, vocab: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("vocab", SIZES)
def test_the_largest_is_the_first_of_the_largest(vocab: int) -> None:
    x = numbers(40, vocab).round()
    x[0] = float("-inf")
    x[1], x[1, vocab - 1] = float("-inf"), -5.0
    x[2, 77] = float("nan")
    first = [0, vocab - 1, 77] + [int((row == row.max()).nonzero()[0]) for row in x[3:]]
    assert two_level.largest(x).tolist() == first


@pytest.mark.parametrize("vocab", SIZES)
@pytest.mark.parametrize("count", [1, 5, 64])
def test_the_top_are_the_same_numbers_at_their_places(vocab: int, count: int) -> None:
    x = numbers(30, vocab)
    values, ids = two_level.top(x, count)
    assert torch.equal(values, x.topk(count).values)
    assert torch.equal(x.gather(1, ids), values)
    assert all(len(set(row)) == count for row in ids.tolist())


def test_top_of_a_row_with_few_that_are_possible_names_tokens_only() -> None:
    x = torch.full((2, 20_001), float("-inf"))
    x[:, 20_000] = 1.0
    values, ids = two_level.top(x, 10)
    assert values[:, 0].tolist() == [1.0, 1.0] and int(ids.max()) == 20_000


@pytest.mark.parametrize("vocab", SIZES)
def test_a_pick_is_where_the_running_sum_passes(vocab: int) -> None:
    p = numbers(200, vocab).softmax(-1)
    p[:, : vocab // 3] = 0
    u = torch.rand(200, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u[0], u[1] = 0.0, 1 - 2**-53
    picked = two_level.pick(p, u).tolist()
    exact = p.double().cumsum(-1)
    share = exact / exact[:, -1:]
    for row, token in enumerate(picked):
        assert p[row, token] > 0
        before = float(share[row, token - 1]) if token else 0.0
        assert before - 1e-6 <= float(u[row]) <= float(share[row, token]) + 1e-6


def test_a_row_whose_weights_are_no_numbers_has_no_pick() -> None:
    p = numbers(3, 20_000).softmax(-1)
    p[1, 5] = float("nan")
    picked = two_level.pick(p, torch.full((3, 1), 0.5, dtype=torch.float64)).tolist()
    assert picked[1] == 20_000 and max(picked[0], picked[2]) < 20_000


VOCAB = 20_000
WAYS = (
    Sampling(),
    Sampling(temperature=0.7),
    Sampling(top_k=1),
    Sampling(top_k=40, temperature=0.8),
    Sampling(top_k=64),
    Sampling(top_k=5000),
    Sampling(top_p=0.5),
    Sampling(top_p=0.999),
    Sampling(min_p=0.05),
    Sampling(top_k=20, top_p=0.8, min_p=0.01, temperature=0.7),
)


def plain(sampling: Sampling, logits: torch.Tensor, u: float) -> int:
    """One rule after another over the whole row, in double precision."""
    p = (logits.double() / sampling.temperature).softmax(-1)
    if sampling.top_k > 0:
        p[p < p.topk(sampling.top_k).values[-1]] = 0
    if sampling.top_p < 1:
        ordered, at = (p / p.sum()).sort(descending=True)
        p[at[(ordered.cumsum(0) - ordered) >= sampling.top_p]] = 0
    if sampling.min_p:
        p[p < sampling.min_p * p.max()] = 0
    sums = p.cumsum(0)
    return int(torch.searchsorted(sums, u * sums[-1], right=True))


def draw(samplings: list[Sampling], logits: torch.Tensor) -> list[int]:
    rows = len(samplings)
    return Sampler(
        samplings, list(range(rows)), [[1, 2]] * rows, [1] * rows, [None] * rows, logits.shape[1], CPU
    ).draw(logits).tokens  # fmt: skip


@pytest.mark.parametrize("sampling", WAYS, ids=lambda s: f"{s.temperature} {s.top_k} {s.top_p} {s.min_p}")
def test_a_draw_from_a_large_vocabulary_is_the_plain_one(sampling: Sampling) -> None:
    rows = 100
    logits = numbers(rows, VOCAB, seed=2)
    places = np.full(rows, 2, dtype=np.uint64)
    uniforms = rng_uniforms(rng_streams(list(range(rows))), places).tolist()
    tokens = draw([sampling] * rows, logits)
    exact = [plain(sampling, logits[row], u) for row, u in enumerate(uniforms)]
    # A number within rounding of an edge may fall to either side.
    assert sum(a != b for a, b in zip(tokens, exact, strict=True)) <= 1
    assert len(set(tokens)) > (1 if sampling.top_k == 1 else 3)


def test_a_row_draws_the_same_beside_rows_that_are_drawn_in_other_ways() -> None:
    logits = numbers(len(WAYS) + 1, VOCAB, seed=3)
    ways = [*WAYS, Sampling(temperature=0.0)]
    together = draw(ways, logits)
    assert together[-1] == int(logits[-1].argmax())
    for row, way in enumerate(ways):
        blank = torch.zeros(row + 1, VOCAB)
        blank[row] = logits[row]
        assert draw([way] * (row + 1), blank)[row] == together[row]


@pytest.mark.parametrize("sampling", [*WAYS, Sampling(temperature=0.0)], ids=str)
def test_logits_that_are_no_numbers_end_the_engine(sampling: Sampling) -> None:
    logits = numbers(3, VOCAB)
    logits[1, 4321] = float("nan")
    with pytest.raises(EngineDead, match="no numbers"):
        draw([sampling] * 3, logits)
