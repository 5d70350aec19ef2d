"""Which answers are the same vote: JSON, tool calls, short words."""

from __future__ import annotations

import json

from reason_engine.engines.scripted import Scripted
from reason_engine.strategies.voting.equal import SameAnswers
from reason_engine.types import Problem, Structured
from reason_engine.verifiers.countdown import Countdown
from tests.strategies.voting.run import context


async def test_json_is_the_same_by_its_values_and_shown_as_it_was_given() -> None:
    ctx = context("json", problem=Problem("?", structured=Structured(json_object=True)))
    answers = ['{"a": 1, "b": [1, 2]}', '{"b": [1.0, 2e0], "a": 1}', '{"a": 1}', '{"a": "1"}', "no  json"]
    assert await SameAnswers().names(ctx, answers) == [answers[0], answers[0], *answers[2:]]


def calls(*listed: tuple[str, object]) -> str:
    return json.dumps([[name, json.dumps(arguments)] for name, arguments in listed])


async def test_tool_calls_are_the_same_in_any_order() -> None:
    ctx = context("tool", problem=Problem("?", tools=({"type": "function"},)))
    one, other = ("find", {"n": 1, "of": "a"}), ("count", {})
    answers = [calls(one, other), calls(other, ("find", {"of": "a", "n": 1.0})), calls(one, one), calls(one), "text"]
    names = await SameAnswers().names(ctx, answers)
    assert [answers.index(name or "") for name in names] == [0, 0, 2, 3, 4]


async def test_a_checkers_answers_are_told_apart_by_their_text() -> None:
    ctx = context("number")
    ctx.run.checker = Countdown(numbers=(4, 6), target=24)
    assert await SameAnswers().names(ctx, ["4 * 6", "6 * 4"]) == ["4 * 6", "6 * 4"]


def knows(prompt: str, options: tuple[str, ...]) -> list[float]:
    """That Paris is the city of Paris."""
    lines = prompt.casefold().splitlines()
    first, second = (line.partition(": ")[2] for line in lines if line.startswith(("one person", "another")))
    return [float("paris" in first and "paris" in second), 0.5]


async def test_short_answers_in_other_words_are_joined_only_if_the_model_is_asked() -> None:
    answers = ["Rome", "the city of Paris", "Paris", "Paris"]
    made = Scripted(choose=knows)
    ctx = context("words", made)
    assert len(set(await SameAnswers().names(ctx, answers))) == 3
    assert made.chooses == 0
    same = SameAnswers(ask=True)
    names = await same.names(ctx, answers)
    assert names[1] == names[2] == names[3] != names[0]
    asked = made.chooses
    assert await same.names(ctx, [*answers, "Paris"]) == [*names, names[2]]
    assert made.chooses == asked  # every pair is asked about once


async def test_other_numbers_and_long_answers_are_never_asked_about() -> None:
    made = Scripted(choose=lambda prompt, options: [1.0, 0.0])
    ctx = context("words", made)
    answers = ["in 1912", "in 1921", " one" * 12 + " more", " one" * 12 + " less"]
    assert len(set(await SameAnswers(ask=True).names(ctx, answers))) == 4
    assert made.chooses == 0
    assert len(set(await SameAnswers(ask=True).names(context("number", made), ["18", "eighteen"]))) == 2
