"""How a run asks for an answer by its kind, asks once more where a path gives none, and looks at a kind again."""

from __future__ import annotations

import asyncio
from math import exp

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.profile import Ask, Profile
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.strategies.chain_of_thought import ChainOfThought
from reason_engine.strategies.direct import Direct
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.types import GenerateRequest, Limits, Problem, Sampling

QUESTION = "Tom has 3 apples and buys 4 more. How many apples does he have?"
OPENING = "The final answer is \\boxed{"


def wordy(prompt: str, seed: int, index: int) -> str:
    """Goes on for ever, but says 7 where it is asked."""
    return "7} and more" if prompt.endswith(OPENING) else "let us think " * 400


def said(outcome: Outcome) -> list[tuple[str | None, str | None, bool]]:
    """(answer, strength, cut) of every path in the trace."""
    return [(node.answer, node.strength, node.cut) for node in outcome.trace.nodes if node.role == "path"]


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        (QUESTION, "put your final answer within \\boxed{}."),
        ("Which is a fruit?\nA) stone\nB) apple\nC) car", "letter of the right option within \\boxed{}."),
        ("Is 7 a prime number?", "answer yes or no within \\boxed{}."),
        ("Write a poem about the sea.", ""),
        ("Solve x + 1 = 3. Put the answer in \\boxed{}.", None),
        ("Write a Python function that adds two numbers.", ""),
    ],
)
async def test_the_form_is_asked_for_by_kind(question: str, asked: str | None) -> None:
    engine = Scripted()
    await solve(ChainOfThought(), Problem(question), engine)
    prompt = str(engine.log[0].prompt)
    assert prompt.count("boxed") == (question + (asked or "")).count("boxed")
    assert (asked or "") in prompt


async def test_direct_asks_for_nothing_and_reports_a_value_all_the_same() -> None:
    engine = Scripted(lambda prompt, seed, index: "He has 3 + 4 = 7 apples, so the answer is 7.")
    outcome = await solve(Direct(), Problem(QUESTION), engine)
    assert "boxed" not in str(engine.log[0].prompt)
    assert outcome.answer.value == "7"
    assert outcome.content == "He has 3 + 4 = 7 apples, so the answer is 7."


async def test_a_profile_asks_in_its_own_words() -> None:
    engine = Scripted()
    await solve(ChainOfThought(), Problem(QUESTION), engine, profile=Profile(ask=Ask(steps="Count.")))
    assert "\nCount." in str(engine.log[0].prompt)
    assert "boxed" not in str(engine.log[0].prompt)


async def test_a_cut_path_is_asked_for_its_answer_within_its_own_limit() -> None:
    engine = Scripted(wordy, logprob=lambda prompt, token: -0.1)
    outcome = await solve(ChainOfThought(), Problem(QUESTION), engine, sampling=Sampling(max_tokens=100))
    assert outcome.answer.value == "7"
    assert outcome.content.endswith(OPENING + "7}")
    assert said(outcome) == [("7", "forced", True)]
    assert (outcome.cut, outcome.unread, outcome.finish_reason) == (1, 0, "stop")
    assert outcome.usage.completion == engine.generated <= 100


async def test_a_path_that_ends_without_a_value_is_asked_as_well() -> None:
    def shy(prompt: str, seed: int, index: int) -> str:
        return "7}" if prompt.endswith(OPENING) else "I do not know how to say it."

    outcome = await solve(ChainOfThought(), Problem(QUESTION), Scripted(shy))
    assert said(outcome) == [("7", "forced", False)]
    assert (outcome.cut, outcome.unread) == (0, 0)


async def test_what_is_streamed_of_a_forced_answer_is_what_is_returned() -> None:
    pieces: list[str] = []
    engine = Scripted(wordy)
    outcome = await solve(
        ChainOfThought(), Problem(QUESTION), engine, sampling=Sampling(max_tokens=64),
        say=lambda piece: pieces.append(piece.text) if piece.field == "content" else None,
    )  # fmt: skip
    assert "".join(pieces) == outcome.content
    assert outcome.content.endswith("7}")


@pytest.mark.parametrize(("logprob", "answer"), [(-0.1, "7"), (-2.0, None)])
async def test_a_forced_vote_weighs_its_probability_and_an_incredible_one_nothing(
    logprob: float, answer: str | None
) -> None:
    engine = Scripted(wordy, logprob=lambda prompt, token: logprob)
    outcome = await solve(SelfConsistency(n=3), Problem(QUESTION), engine, sampling=Sampling(max_tokens=100))
    assert outcome.answer.value == answer
    paths = [node for node in outcome.trace.nodes if node.role == "path"]
    assert [node.weight for node in paths] == pytest.approx([exp(logprob)] * 3)
    assert (outcome.cut, outcome.unread) == (3, 0)


async def test_under_a_token_budget_every_path_still_answers() -> None:
    """The tokens of the answers are leased when the paths begin, so that the paths cannot spend them."""
    engine = Scripted(wordy, logprob=lambda prompt, token: -0.1)
    outcome = await solve(SelfConsistency(n=4), Problem(QUESTION), engine, limits=Limits(tokens=300))
    assert [answer for answer, _, _ in said(outcome)] == ["7"] * 4
    assert outcome.usage.completion == engine.generated <= 300


async def test_a_path_at_the_deadline_is_asked_before_it() -> None:
    async def slow(request: GenerateRequest, index: int, position: int) -> None:
        if position >= 3 and not str(
            engine.detokenize(request.prompt) if isinstance(request.prompt, tuple) else request.prompt
        ).endswith(OPENING):
            await asyncio.Event().wait()

    engine = Scripted(wordy, gate=slow, logprob=lambda prompt, token: -0.1)
    outcome = await solve(SelfConsistency(n=2), Problem(QUESTION), engine, limits=Limits(seconds=0.5))
    assert outcome.stopped == "budget-seconds"
    assert said(outcome) == [("7", "forced", True)] * 2
    assert engine.running == 0


@pytest.mark.parametrize("question", ["Write a poem about the sea.", "Tell me about whales."])
async def test_free_text_is_not_asked_for_anything(question: str) -> None:
    engine = Scripted(wordy)
    outcome = await solve(ChainOfThought(), Problem(question), engine, sampling=Sampling(max_tokens=50))
    assert engine.requests == 1
    assert (outcome.finish_reason, outcome.unread) == ("length", 0)


async def test_a_kind_that_no_path_satisfies_is_an_abstention_of_all() -> None:
    engine = Scripted(lambda prompt, seed, index: "Whales are mammals.")
    strategy = SelfConsistency(n=3, answer_kind="number")
    outcome = await solve(strategy, Problem("Tell me about whales."), engine)
    assert (outcome.answer.value, outcome.answer.confidence, outcome.unread) == (None, None, 3)
    assert outcome.content


async def test_the_answer_after_an_open_thought_closes_it_first() -> None:
    def thinker(prompt: str, seed: int, index: int) -> str:
        return "7}" if prompt.endswith(OPENING) else "hm " * 500

    engine = Scripted(thinker, thinks=True)
    outcome = await solve(ChainOfThought(), Problem(QUESTION), engine, sampling=Sampling(max_tokens=100))
    assert outcome.content == OPENING + "7}"
    assert outcome.reasoning is not None
    assert outcome.reasoning.startswith("hm hm")
    assert outcome.answer.value == "7"


async def test_a_model_that_thinks_gets_fewer_paths_before_shorter_thoughts() -> None:
    engine = Scripted(lambda prompt, seed, index: "hm </think> \\boxed{7}", thinks=True, context=100_000)
    limits = Limits(tokens=10_000)
    outcome = await solve(SelfConsistency(n=16), Problem(QUESTION), engine, limits=limits)
    assert outcome.samples == 2
    outcome = await solve(SelfConsistency(n=16), Problem(QUESTION), engine, limits=limits, thought=1024)
    assert outcome.samples == 6


async def test_a_model_that_marks_its_answers_means_what_it_marks() -> None:
    """The question seems to want a number; the model's own marked line says something else."""
    question = "Convert 49 hours into minutes. What kind of amount is it?"
    engine = Scripted(lambda prompt, seed, index: "Hours are time.\nAnswer: time")
    own = Profile(ask=Ask(steps="Think."), answer_marker="Answer:")
    strategy = ChainOfThought()
    assert (await solve(strategy, Problem(question), engine, profile=own)).answer.value == "time"
    named = ChainOfThought(answer_kind="number")
    assert (await solve(named, Problem(question), engine, profile=own)).answer.value is None


async def test_a_path_that_answered_before_it_was_cut_is_not_asked_again() -> None:
    engine = Scripted(lambda prompt, seed, index: "It is \\boxed{7} and now " + "some more " * 200)
    outcome = await solve(ChainOfThought(), Problem(QUESTION), engine, sampling=Sampling(max_tokens=100))
    assert (outcome.answer.value, outcome.cut, engine.requests) == ("7", 0, 1)
    assert outcome.finish_reason == "length"


async def test_later_waves_are_asked_as_the_first_one_was() -> None:
    """The first wave shows that a number is wanted; another prompt now would be another question."""
    values = iter("12345678")
    engine = Scripted(lambda prompt, seed, index: f"It is \\boxed{{{next(values)}}}.")
    outcome = await solve(SelfConsistency(n=6, adaptive=True), Problem("Tell me about whales."), engine)
    assert engine.requests > 1
    assert len({str(request.prompt) for request in engine.log}) == 1
    assert outcome.answer.value is not None
