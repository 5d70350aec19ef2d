"""What a model's yes is worth, and what a search does where it is worth nothing."""

from __future__ import annotations

from typing import Any

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.runtime.solve import solve
from reason_engine.strategies import strategies
from reason_engine.strategies.search.calibration import FEW, MANY, TELLS, WORTHLESS, Calibration
from reason_engine.types import Limits
from tests.strategies.chat import ASKED, chat, chatter
from tests.strategies.puzzle import PROFILE, player, problem

BY_VALUE: list[tuple[str, dict[str, Any]]] = [
    ("tree-of-thoughts", {"k": 6}),
    ("tree-of-thoughts", {"search": "breadth", "k": 6}),
    ("mcts", {"evaluate": "value", "k": 6}),
]
by_value = pytest.mark.parametrize(("name", "fields"), BY_VALUE)


class Notes:
    """Stands for a context: gathers, and keeps notes."""

    def __init__(self) -> None:
        self.noted: dict[str, Any] = {}

    async def gather_within_budget(self, work: Any, items: Any) -> list[Any]:
        return [await work(item) for item in items]

    def note(self, **data: Any) -> None:
        self.noted |= data


async def calibrated(constant: float) -> Calibration:
    made, notes = Calibration(), Notes()

    async def ask(state: str) -> float:
        assert state in WORTHLESS
        return constant

    await made.measure(notes, ask)  # pyright: ignore[reportArgumentType]
    assert notes.noted["worthless"] == pytest.approx(constant)
    return made


async def test_a_state_worth_no_more_than_nonsense_is_worth_a_half() -> None:
    made = await calibrated(0.9)
    assert made.value("same", 0.9) == pytest.approx(0.5)
    # p (1 - r) / (p (1 - r) + r (1 - p))
    assert made.value("better", 0.99) == pytest.approx(0.99 * 0.1 / (0.99 * 0.1 + 0.9 * 0.01))
    assert 0 < made.value("never", 0.0) < made.value("always", 1.0) < 1


async def test_values_are_followed_where_one_state_is_told_from_nonsense() -> None:
    made = await calibrated(0.5)
    for number in range(FEW):
        made.value(str(number), 0.5)
    assert "nonsense" in made.fault
    made.value("good", TELLS + 0.01)
    assert made.fault == ""


async def test_values_that_are_all_the_same_are_not_followed() -> None:
    made = await calibrated(0.3)
    for number in range(MANY - 1):
        made.value(str(number), 0.7)
    assert made.fault == ""
    made.value("one more", 0.701)
    assert "one value" in made.fault


async def test_the_same_value_far_from_nonsense_is_no_fault() -> None:
    made = await calibrated(0.05)
    for number in range(MANY):
        made.value(str(number), 0.95)
    assert made.fault == ""


async def test_what_could_not_be_measured_stays_as_it_is() -> None:
    made = Calibration()
    assert made.value("x", 0.7) == 0.7
    assert made.fault == ""


@by_value
async def test_a_model_that_says_yes_to_everything_is_noticed(name: str, fields: dict[str, Any]) -> None:
    engine = Scripted(chat, choose=lambda prompt, options: [0.93, 0.07])
    outcome = await solve(strategies.get(name).model_validate(fields), ASKED, engine)
    notes = outcome.trace.nodes[0].notes
    assert "whole paths vote" in notes["fallback"]
    assert outcome.answer.value == "5"
    weights = {vote.weight / vote.count for vote in outcome.answer.votes}
    assert weights == {1.0}
    assert sum(vote.count for vote in outcome.answer.votes) >= 6
    # It is noticed at once: no state below the first ones was valued.
    assert engine.chooses <= len(WORTHLESS) + 6 * 4


@by_value
async def test_a_model_that_tells_is_followed(name: str, fields: dict[str, Any]) -> None:
    outcome = await solve(strategies.get(name).model_validate(fields), ASKED, chatter())
    assert "fallback" not in outcome.trace.nodes[0].notes
    assert outcome.answer.value == "5"


@by_value
async def test_with_a_checker_nothing_is_asked_about_nonsense(name: str, fields: dict[str, Any]) -> None:
    engine = player()
    outcome = await solve(strategies.get(name).model_validate(fields), problem(), engine, profile=PROFILE)
    assert all("worthless" not in node.notes for node in outcome.trace.nodes)
    assert outcome.answer.confidence == 1.0


@by_value
@pytest.mark.parametrize("limits", [Limits(tokens=50), Limits(samples=7)])
async def test_a_budget_holds_in_the_vote_as_well(name: str, fields: dict[str, Any], limits: Limits) -> None:
    engine = Scripted(chat, choose=lambda prompt, options: [0.93, 0.07])
    outcome = await solve(strategies.get(name).model_validate(fields), ASKED, engine, limits=limits)
    assert engine.generated <= (limits.tokens or 10_000)
    assert engine.samples <= (limits.samples or 10_000)
    assert outcome.content
