"""The vote: what is particular to it."""

from __future__ import annotations

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.profile import Profile
from reason_engine.runtime.solve import solve
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.types import GenerateRequest, Problem


def four(prompt: str, seed: int, index: int) -> str:
    return f"thinking\nAnswer: {4 if index % 5 else 7}"


async def test_the_most_frequent_answer_wins_in_one_request() -> None:
    engine = Scripted(four)
    outcome = await solve(SelfConsistency(n=10), Problem("2 + 2?"), engine)
    assert outcome.answer.value == "4"
    assert [(vote.answer, vote.count) for vote in outcome.answer.votes] == [("4", 8), ("7", 2)]
    assert outcome.answer.confidence == pytest.approx(0.8)
    assert engine.requests == 1
    assert outcome.content == "Answer: 4"


async def test_equal_values_written_differently_are_one_vote() -> None:
    texts = ["Answer: 1/2", "Answer: 0.5", "Answer: 3"]
    outcome = await solve(SelfConsistency(n=3), Problem("?"), Scripted(lambda p, s, i: texts[i]))
    assert outcome.answer.votes[0].count == 2


async def test_no_answer_is_no_vote_and_no_confidence() -> None:
    engine = Scripted(lambda p, s, i: f"rambling number {i} of many words", logprob=lambda p, t: -float(len(t)))
    outcome = await solve(SelfConsistency(n=4), Problem("?"), engine)
    assert outcome.answer.votes == ()
    assert outcome.answer.confidence is None
    assert outcome.content.startswith("rambling")
    assert outcome.finish_reason == "stop"


@pytest.mark.parametrize(
    ("fields", "certain", "paths"),
    [({}, None, 4), ({}, 0.85, 3), ({"confidence": 0.85}, None, 3), ({"confidence": 0.95}, 0.85, 4)],
    ids=["usual", "profile", "request", "request over profile"],
)
async def test_adaptive_stops_when_all_agree(fields: dict[str, float], certain: float | None, paths: int) -> None:
    engine = Scripted(lambda p, s, i: "Answer: 4")
    profile = Profile() if certain is None else Profile(certain=certain)
    strategy = SelfConsistency.model_validate({"n": 16, "adaptive": True, **fields})
    outcome = await solve(strategy, Problem("?"), engine, profile=profile)
    assert engine.samples == paths
    assert outcome.stopped == "decided"


async def test_adaptive_goes_on_while_the_vote_is_open() -> None:
    engine = Scripted(lambda p, s, i: f"Answer: {s % 2}")
    strategy = SelfConsistency(n=16, adaptive=True, confidence=0.95)
    outcome = await solve(strategy, Problem("?"), engine, seed=1)
    assert engine.samples > 8
    assert outcome.answer.value in ("0", "1")


async def test_a_settled_wave_aborts_its_rest() -> None:
    import asyncio

    voted = asyncio.Event()

    async def one_is_slow(request: GenerateRequest, index: int, position: int) -> None:
        if index == request.n - 1 and position:
            await voted.wait()  # never set: only an abort ends this path

    strategy = SelfConsistency(n=3, adaptive=True)
    engine = Scripted(lambda p, s, i: "so\nAnswer: 4", gate=one_is_slow)
    outcome = await solve(strategy, Problem("?"), engine)
    assert outcome.answer.value == "4"
    assert engine.aborted == 1
    assert outcome.usage.completion == engine.generated


async def test_a_body_temperature_of_zero_is_ignored_and_noted() -> None:
    engine = Scripted(four)
    outcome = await solve(SelfConsistency(n=2), Problem("?"), engine, temperature=0.0)
    assert engine.log[0].sampling.temperature == 0.7
    assert "temperature" in outcome.trace.nodes[0].notes
    await solve(SelfConsistency(n=2, temperature=0.0), Problem("?"), engine, temperature=1.0)
    assert engine.log[1].sampling.temperature == 0.0


async def test_an_adaptive_vote_is_a_beginning_of_the_fixed_one() -> None:
    def reply(prompt: str, seed: int, index: int) -> str:
        return f"so\nAnswer: {int(seed % 4 > 0)}"

    async def texts(**fields: object) -> list[str]:
        strategy = SelfConsistency.model_validate({"n": 12, **fields})
        outcome = await solve(strategy, Problem("?"), Scripted(reply), seed=5)
        return [node.text for node in outcome.trace.nodes if node.role == "path"]

    fixed, adaptive = await texts(), await texts(adaptive=True, confidence=0.95)
    assert 3 < len(adaptive) < 12
    assert adaptive == fixed[: len(adaptive)]
