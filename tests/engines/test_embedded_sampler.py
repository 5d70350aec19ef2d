"""The sampler against distributions worked out here, with thousands of rows in one draw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from reason_engine.engines.embedded.sampling.sampler import Drawn, Sampler
from reason_engine.errors import EngineDead
from reason_engine.types import Sampling

CPU = torch.device("cpu")
ROWS, VOCAB = 4000, 50
LOGITS = torch.randn(VOCAB, generator=torch.Generator().manual_seed(3)) * 2


def draw(
    samplings: list[Sampling], seeds: list[int], logits_BV: torch.Tensor, ids: list[list[int]] | None = None
) -> Drawn:
    ids = ids or [[1, 2, 3]] * len(samplings)
    return Sampler(
        samplings, seeds, ids, [2] * len(ids), [None] * len(ids), logits_BV.shape[1], CPU
    ).draw(logits_BV)  # fmt: skip


def expected(s: Sampling) -> torch.Tensor:
    """Probabilities, one rule after another in vocabulary order."""
    logits = LOGITS.double().clone()
    for token, bias in s.logit_bias:
        logits[token] += bias
    p = (logits / s.temperature).softmax(-1)
    if s.top_k > 0:
        p[p < p.topk(s.top_k).values[-1]] = 0
    if s.top_p < 1:
        ordered, at = (p / p.sum()).sort(descending=True)
        p[at[(ordered.cumsum(0) - ordered) >= s.top_p]] = 0
    if s.min_p:
        p[p < s.min_p * p.max()] = 0
    return p / p.sum()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": -1},
        {"top_p": 0.6},
        {"top_p": 0.01},
        {"min_p": 0.3},
        {"top_k": 5, "top_p": 0.8, "temperature": 1.5, "min_p": 0.05},
        {"logit_bias": ((5, 3.0), (6, -100.0))},
    ],
    ids=str,
)
def test_draws_follow_the_distribution(change: dict[str, Any]) -> None:
    s = replace(Sampling(), **change)
    drawn = draw([s] * ROWS, list(range(ROWS)), LOGITS.expand(ROWS, -1))
    share = torch.bincount(drawn.tokens_B, minlength=VOCAB).double() / ROWS
    p = expected(s)
    assert ((share - p).abs() <= 4.5 * (p * (1 - p) / ROWS).sqrt() + 1e-9).all()


def test_a_row_draws_the_same_whatever_stands_beside_it() -> None:
    settings = [
        Sampling(),
        Sampling(temperature=0),
        Sampling(top_p=0.4),
        Sampling(top_k=2, logprobs=3),
        Sampling(min_p=0.2, temperature=2.0),
        Sampling(frequency_penalty=1.0, repetition_penalty=1.3),
        Sampling(logit_bias=((4, 2.0),)),
    ]
    logits = torch.randn(len(settings), 300, generator=torch.Generator().manual_seed(1))
    mixed = draw(settings, list(range(len(settings))), logits).tokens
    alone = [draw([s], [i], logits[i : i + 1]).tokens[0] for i, s in enumerate(settings)]
    assert mixed == alone
    assert mixed[1] == int(logits[1].argmax())


def test_large_vocabularies_take_the_short_way_and_the_long_one() -> None:
    flat = torch.zeros(2, 20_000)
    flat[0, 7] = 30.0
    drawn = draw([Sampling(top_p=0.9)] * 2, [1, 2], flat)
    assert drawn.tokens[0] == 7
    wide = draw([Sampling(top_p=0.5)] * 40, list(range(40)), torch.randn(1, 20_000).expand(40, -1))
    assert len(set(wide.tokens)) > 30


def test_logprobs_are_the_models_own() -> None:
    s = Sampling(temperature=0.3, top_k=2, logprobs=4, logit_bias=((9, 50.0),))
    drawn = draw([s], [0], LOGITS.unsqueeze(0))
    truth = LOGITS.log_softmax(-1)
    assert drawn.tokens == [9]
    assert drawn.logprobs is not None
    value, top = drawn.logprobs[0]
    assert value == pytest.approx(float(truth[9]), abs=1e-5)
    assert [t for t, _ in top] == truth.topk(4).indices.tolist()
    assert draw([Sampling(logprobs=0)], [0], LOGITS.unsqueeze(0)).logprobs[0][1] == []  # type: ignore[index]
    assert draw([Sampling()], [0], LOGITS.unsqueeze(0)).logprobs is None


def test_penalties_count_what_was_generated_and_repetition_the_prompt_too() -> None:
    ids = [[4, 5, 6, 6]]  # two prompt tokens, then 6 twice
    flat = torch.full((1, 10), 1.0)

    def after(**change: float) -> torch.Tensor:
        sampler = Sampler([replace(Sampling(), **change)], [0], ids, [2], [None], 10, CPU)  # type: ignore[arg-type]
        return sampler._adjust(flat.clone())[0]

    assert after(frequency_penalty=0.5).tolist() == pytest.approx([1, 1, 1, 1, 1, 1, 0, 1, 1, 1])
    assert after(presence_penalty=0.5).tolist() == pytest.approx([1, 1, 1, 1, 1, 1, 0.5, 1, 1, 1])
    assert after(repetition_penalty=2.0).tolist() == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.5, 1, 1, 1])


def test_impossible_tokens_are_never_drawn() -> None:
    logits = torch.full((ROWS, 8), float("-inf"))
    logits[:, 2], logits[:, 5] = 0.0, 0.0
    assert set(draw([Sampling()] * ROWS, list(range(ROWS)), logits).tokens) == {2, 5}


@pytest.mark.parametrize("temperatures", [[1.0, 1.0], [0.7, 0.7], [0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
def test_logits_that_are_no_numbers_end_the_engine_by_name(temperatures: list[float]) -> None:
    logits_BV = LOGITS.repeat(2, 1)
    logits_BV[1, 7] = float("nan")
    with pytest.raises(EngineDead, match="logits are no numbers"):
        draw([Sampling(temperature=t) for t in temperatures], [1, 2], logits_BV)
