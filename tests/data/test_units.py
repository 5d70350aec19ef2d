"""The new task: conversions are right by the ladders, and evaluation never meets what training draws."""

from __future__ import annotations

import random
import re

import pytest
from pydantic import ValidationError

from reason_engine.recipes.units import KINDS, Units, conversion
from reason_engine.recipes.units import UnitsTask as Task

FACTORS = dict[tuple[str, str], int]()
LADDERS = [ladder for ladders in KINDS.values() for ladder in ladders]
for ladder in LADDERS:
    names, factors = ladder[::2], ladder[1::2]
    FACTORS |= {
        (names[1][1], names[0][1]): factors[0], (names[2][1], names[1][1]): factors[1],
        (names[2][1], names[0][1]): factors[0] * factors[1],
    }  # fmt: skip
PLURAL = {form: name[1] for ladder in LADDERS for name in ladder[::2] for form in name}


def by_hand(question: str) -> int:
    """The amounts of a question in its smallest unit, by a table."""
    text = question.split("\n")[0]
    unit = re.search(r"How many (\w+)", text) or re.search(r"(?:to|in) (\w+)[.?]$", text)
    assert unit
    asked, total = unit[1], 0
    for count, name in re.findall(r"(\d+) (\w+)", text):
        total += int(count) * FACTORS.get((asked, PLURAL[name]), 1)
    return total


def test_answers_are_right_by_a_table() -> None:
    rng = random.Random(5)
    seen = set[str]()
    for _ in range(600):
        one = conversion(rng, rng.randint(1, 2))
        assert one.lines[-1].value == one.answer == by_hand(one.question)
        seen.add(one.question)
    assert len(seen) > 550


def test_training_and_evaluation_share_no_amount() -> None:
    def amount(question: str) -> str:
        return ", ".join(re.findall(r"\d+ \w+", question.split("\n")[0]))

    rng = random.Random(1)
    trained = {amount(Units.model_validate({"rationale": 0.5}).example(rng).question) for _ in range(3000)}
    asked = {amount(problem.question) for problem in Task.model_validate({}).problems(1000, 0, None)}
    developed = {amount(problem.question) for problem in Task.model_validate({}).development(300, 0)}
    assert len(trained) > 1500 and len(asked) > 500
    assert not trained & (asked | developed)
    kept = Units.model_validate({"held_out": True})
    assert not trained & {amount(kept.example(rng).question) for _ in range(300)}


def test_one_kind_of_amounts() -> None:
    asked = " ".join(problem.question for problem in Task.model_validate({"kind": "time"}).problems(200, 0, None))
    assert "hours" in asked and "feet" not in asked and "eggs" not in asked
    with pytest.raises(ValidationError, match="kind"):
        Task.model_validate({"kind": "times"})
    with pytest.raises(ValidationError, match="kinds"):
        Units.model_validate({"kinds": ["times"]})


@pytest.mark.parametrize("levels", [(0, 1), (1, 3), (2, 1)])
def test_levels_that_do_not_exist_are_refused(levels: tuple[int, int]) -> None:
    with pytest.raises(ValidationError, match="levels"):
        Units.model_validate({"levels": levels})
    with pytest.raises(ValueError, match="levels must be 1 or 2"):
        conversion(random.Random(0), 3)
