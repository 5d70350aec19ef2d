"""DeepConf: the measure against brute force, and weak paths that end while they run."""

from __future__ import annotations

import random

import pytest
from pydantic import ValidationError

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import CapabilityMissing
from reason_engine.runtime.solve import solve
from reason_engine.strategies.confidence import Confidence, Groups, gate_of, percentile, token_confidence
from reason_engine.types import Path, Problem, TokenLogprob


def token(*logprobs: float) -> TokenLogprob:
    return TokenLogprob(0, "t", logprobs[0], tuple((i, "t", value) for i, value in enumerate(logprobs)))


def path(*confidences: float) -> Path:
    tokens = tuple(token(-value, -value) for value in confidences)
    return Path(0, "", "", logprobs=tokens, tokens=len(tokens))


def test_token_confidence_is_high_where_all_but_one_are_unlikely() -> None:
    assert token_confidence(token(-0.7, -0.7), 2) == pytest.approx(0.7)
    assert token_confidence(token(0.0, -10.0), 2) == pytest.approx(5.0)
    assert token_confidence(token(0.0, -10.0, float("-inf")), 2) == pytest.approx(5.0)
    assert token_confidence(token(0.0, float("-inf")), 5) == pytest.approx(50.0)


@pytest.mark.parametrize("window", [1, 4, 30])
def test_group_confidence_is_the_lowest_mean_over_whole_windows(window: int) -> None:
    rng = random.Random(window)
    values = [rng.uniform(0, 9) for _ in range(30)]
    groups, tokens = Groups(window, 2), path(*values).logprobs
    while tokens:
        size = rng.randint(1, 5)
        groups.feed(tokens[:size])
        tokens = tokens[size:]
    means = [sum(values[i : i + window]) / window for i in range(30 - window + 1)]
    assert groups.confidence == pytest.approx(min(means))


def test_a_path_shorter_than_the_window_is_one_group_and_says_so_only_at_its_end() -> None:
    groups = Groups(10, 2)
    groups.feed(path(2, 4).logprobs)
    assert (groups.lowest, groups.confidence) == (None, pytest.approx(3))
    assert Groups(10, 2).confidence == 0


def test_the_gate_lets_the_share_through_and_scales_its_window() -> None:
    warm = [path(*[float(level)] * 40) for level in (1, 2, 3, 4, 5)]
    gate = gate_of(warm, 0.5, 2, None)
    assert (gate.window, gate.threshold) == (10, pytest.approx(3))
    assert [gate.weight(p) > 0 for p in warm] == [False, False, True, True, True]
    assert gate_of(warm, 0.5, 2, 7).window == 7
    assert gate_of([], 0.5, 2, None).threshold == 0
    assert [percentile([1, 2, 4], share) for share in (0, 0.25, 0.5, 1)] == [1, 1.5, 2, 4]


def engine(**options: object) -> Scripted:
    """Four sure paths in the first request, then one unsure path in the second."""
    calls: list[int] = []

    def reply(prompt: str, seed: int, index: int) -> str:
        calls.append(index)
        unsure = len(calls) > 4 and index == 1
        return "maybe " * 60 + "\nAnswer: 9" if unsure else "sure " * 20 + "\nAnswer: 4"

    return Scripted(reply, logprob=lambda p, t: -0.1 if "maybe" in t else -3.0, **options)  # type: ignore[arg-type]


async def test_a_weak_path_is_aborted_alone_while_it_runs() -> None:
    made = engine()
    outcome = await solve(Confidence(n=8, adaptive=False, keep=1.0), Problem("?"), made)
    assert (made.samples, made.aborted) == (8, 1)
    lengths = sorted(node.tokens for node in outcome.trace.nodes if node.role == "path")
    assert lengths[0] < 15  # a window, and what came before the engine heard of it
    assert lengths[1:] == [23] * 7
    assert outcome.usage.completion == made.generated == sum(lengths)
    assert [(vote.answer, vote.count) for vote in outcome.answer.votes] == [("4", 7)]
    notes = outcome.trace.nodes[0].notes
    assert (notes["window"], notes["kept"]) == (6, 7)
    assert all(node.scores[0]["by"] == "confidence" for node in outcome.trace.nodes if node.role == "path")


async def test_where_the_engine_cannot_stop_one_it_runs_on_without_a_vote() -> None:
    made = engine(caps=Capabilities(logprobs=5, token_ids=True, continuation=True))
    outcome = await solve(Confidence(n=8, adaptive=False, keep=1.0), Problem("?"), made)
    assert made.aborted == 0
    assert [(vote.answer, vote.count) for vote in outcome.answer.votes] == [("4", 7)]


async def test_a_confident_minority_outweighs_a_doubtful_majority() -> None:
    texts = ["maybe so\nAnswer: 9"] * 3 + ["surely so\nAnswer: 4"] * 2
    sure = {"maybe": -0.1, "9": -0.1, "surely": -9.0, "4": -9.0}
    made = Scripted(lambda p, s, i: texts[i], logprob=lambda p, t: sure.get(t.strip(), -1.0))
    outcome = await solve(Confidence(n=5, warmup=5, keep=1.0, window=9), Problem("?"), made)
    assert [(vote.answer, vote.count) for vote in outcome.answer.votes] == [("4", 2), ("9", 3)]
    weights = [vote.weight for vote in outcome.answer.votes]
    assert outcome.answer.confidence == pytest.approx(weights[0] / sum(weights))


async def test_adaptive_stops_after_a_warm_up_that_agrees() -> None:
    made = Scripted(lambda p, s, i: "so it is\nAnswer: 4")
    outcome = await solve(Confidence(n=16, confidence=0.85), Problem("?"), made)
    assert (made.samples, outcome.stopped, outcome.answer.value) == (3, "decided", "4")
    assert made.log[0].sampling.logprobs == 5


async def test_it_goes_on_while_the_vote_is_open() -> None:
    made = Scripted(lambda p, s, i: f"so\nAnswer: {s % 2}")
    await solve(Confidence(n=12, keep=1.0), Problem("?"), made)
    assert made.samples > 6


async def test_an_engine_without_alternatives_is_refused_before_a_token_is_spent() -> None:
    for logprobs in (-1, 0, 1):
        made = Scripted(caps=Capabilities(logprobs=logprobs, continuation=True))
        with pytest.raises(CapabilityMissing, match="logprobs") as caught:
            await solve(Confidence(), Problem("?"), made)
        assert (caught.value.param, made.requests) == ("reasoning.strategy", 0)


def test_bad_fields() -> None:
    for fields in ({"keep": 0}, {"keep": 1.1}, {"warmup": 0}, {"window": 0}, {"k": 1}, {"k": 21}, {"n": 257}):
        with pytest.raises(ValidationError):
            Confidence.model_validate(fields)
