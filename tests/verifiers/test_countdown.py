"""The exact checker: what is legal, where it leads, what counts as solved."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from reason_engine.contracts import Call
from reason_engine.errors import RequestError
from reason_engine.types import Path, Problem
from reason_engine.verifiers import verifiers
from reason_engine.verifiers.countdown import Countdown

GAME = Countdown(numbers=(1, 4, 5, 10), target=24)
STEPS = ("10 - 4 = 6 (left: 1 5 6)", "5 - 1 = 4 (left: 4 6)", "6 * 4 = 24 (left: 24)")


@pytest.mark.parametrize(
    "answer", ["(10 - 4) * (5 - 1) = 24", "(10 - 4) * (5 - 1)", "(5-1)*(10-4)=24", "Answer: (10 - 4) * (5 - 1) = 24"]
)
def test_solved(answer: str) -> None:
    assert GAME.solved(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "24",
        "= 24",
        "4 * 5 + 4 = 24",
        "(10 - 4) * (5 - 1) = 25",
        "(10 - 4) * (5 - 1) = 24 = 24",
        "(10 - 4) * (5 - 1) * 1 = 24",
        "10 + 4 + 5 + 5 = 24",
        "(10 - 4) * 4 = 24",
        "10 + 4 + 5 - 1 = 24",
        "-(4 - 10) * (5 - 1) = 24",
        "(104 - 5) / 1 = 24",
        "(10 - 4) * (5 - 1) = 24; 1",
        "1" * 1_000_000,
    ],
)
def test_not_solved(answer: str) -> None:
    assert not GAME.solved(answer)


def test_a_fraction_on_the_way_is_exact() -> None:
    assert Countdown(numbers=(3, 3, 8, 8), target=24).solved("8 / (3 - 8 / 3) = 24")


def test_other_targets() -> None:
    assert Countdown(numbers=(2, 9), target=-7).solved("2 - 9 = -7")
    assert not Countdown(numbers=(2, 9), target=7).solved("2 - 9 = -7")


def test_every_prefix_of_a_solution_is_legal() -> None:
    for end in range(1, len(STEPS) + 1):
        assert GAME.step_ok(STEPS[:end])
    assert GAME.step_ok([*STEPS, "Answer: (10 - 4) * (5 - 1) = 24"])
    assert not GAME.step_ok([*STEPS, "Answer: 10 + 4 + 5 + 5 = 24"])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "hello",
        "10 - 4 = 6",
        "10 - 4 = 7 (left: 1 5 7)",
        "10 - 4 = 6 (left: 1 5 6 10)",
        "10 - 4 = 6 (left: 1 6)",
        "10 - 3 = 7 (left: 1 4 5 7)",
        "10 - 10 = 0 (left: 0 1 4 5)",
        "10 / 0 = 0 (left: 0 1 4 5)",
        "10 - 4 = 6/0 (left: 1 5 6)",
        "10 - 4 = 6 (left: 1 5 6/0)",
        "10 ** 4 = 10000 (left: 1 5 10000)",
        "10 - 4 = 6 (left: 1 5 6) " * 100_000,
        "9" * 1_000_000,
    ],
)
def test_illegal_lines(line: str) -> None:
    assert not GAME.step_ok([line])


def test_fractions_and_negative_numbers_in_steps() -> None:
    game = Countdown(numbers=(3, 3, 8, 8), target=24)
    steps = ["8 / 3 = 8/3 (left: 3 8/3 8)", "3 - 8/3 = 1/3 (left: 1/3 8)", "8 / 1/3 = 24 (left: 24)"]
    assert all(game.step_ok(steps[:end]) for end in (1, 2, 3))
    assert game.state(steps[:1]) == "8/3 3 8 make 24"
    assert GAME.step_ok(["4 - 10 = -6 (left: -6 1 5)"])
    assert GAME.step_ok(["4 - 10 = -6 (left: -6 1 5)", "5 - -6 = 11 (left: 1 11)"])


def test_nothing_follows_an_illegal_step_and_nothing_is_no_step() -> None:
    assert not GAME.step_ok(["10 - 4 = 7 (left: 1 5 7)", "5 - 1 = 4 (left: 4 7)"])
    assert not GAME.step_ok([])


def test_state_is_canonical() -> None:
    assert GAME.state([]) == "1 4 5 10 make 24"
    assert GAME.state(STEPS[:1]) == "1 5 6 make 24"
    assert GAME.state(["10 - 4 = 6 (left: 6 5 1)"]) == GAME.state(STEPS[:1])
    assert GAME.state([*STEPS, "Answer: (10 - 4) * (5 - 1) = 24"]) == "24 make 24"
    assert GAME.state(["nonsense", STEPS[0]]) == "1 5 6 make 24"


def test_from_groups() -> None:
    assert Countdown.from_groups({"numbers": "4 5 6, 10", "target": "30"}).target == 30
    assert Countdown.from_groups({"numbers": "4 5 6 10"}) == Countdown(numbers=(4, 5, 6, 10), target=24)
    assert Countdown.from_groups({"numbers": "4 5", "target": None}).target == 24


@pytest.mark.parametrize(
    "groups",
    [{"numbers": "1 " * 13}, {"numbers": "1 2", "target": "x"}, {"numbers": "9999999 1"}, {"target": "9" * 5000}],
)
def test_groups_out_of_range_are_the_callers_fault(groups: dict[str, str]) -> None:
    with pytest.raises(RequestError):
        Countdown.from_groups(groups)


@pytest.mark.parametrize(
    ("question", "numbers", "target"),
    [
        ("Use the numbers 4 5 6 10 and + - * / to make 24.", (4, 5, 6, 10), 24),
        ("Use numbers and basic arithmetic operations (+ - * /) to obtain 24. Input: 4 5 6 10", (4, 5, 6, 10), 24),
        ("Use the numbers 3, 7 and 12 to reach 33.", (3, 7, 12), 33),
        ("Countdown: use 3 7 12 to reach 33.", (3, 7, 12), 33),
    ],
)
async def test_scores_read_the_question(question: str, numbers: tuple[int, ...], target: int, no_call: Call) -> None:
    problem = Problem(question)
    assert Countdown().of(problem) == Countdown(numbers=numbers, target=target)
    wrong, none = Path(0, "", "", answer="1 + 1"), Path(1, "", "")
    assert [s.value for s in await Countdown().score(problem, [wrong, none], no_call)] == [0, 0]


async def test_scores_prefer_params_then_meta(no_call: Call) -> None:
    problem = Problem("?", meta={"numbers": (1, 4, 5, 10), "target": 24})
    right = Path(0, "", "", answer="(10 - 4) * (5 - 1) = 24")
    assert [s.value for s in await verifiers.get("countdown")().score(problem, [right], no_call)] == [1]
    assert [s.value for s in await Countdown(numbers=(1, 2), target=3).score(problem, [right], no_call)] == [0]


@pytest.mark.parametrize("question", ["What is 2 + 2?", "Use the numbers 4 5 6 10.", "make 24", ""])
async def test_a_question_without_a_game_is_refused(question: str, no_call: Call) -> None:
    with pytest.raises(RequestError) as caught:
        await Countdown().score(Problem(question), [], no_call)
    assert caught.value.param is not None and caught.value.param.startswith("reasoning.verifier.params.")


@pytest.mark.parametrize(
    "params",
    [
        {"numbers": [-1, 2], "target": 3},
        {"numbers": [1, 2], "target": 10**9},
        {"numbers": ["x"]},
        {"numbers": [1] * 13},
        {"number": [1]},
    ],
)
def test_bad_params(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Countdown.model_validate(params)
