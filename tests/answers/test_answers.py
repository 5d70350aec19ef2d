"""Extraction, normalisation and equality of final answers, with hostile input."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from fractions import Fraction

import pytest

from reason_engine.answers import Equality, find, normalise
from reason_engine.answers.values.number import rational
from reason_engine.answers.values.plain import LIMIT

TOWER = "9^{9^{9^{9}}}"
"""Takes the worker for ever."""


@pytest.fixture
async def equality() -> AsyncIterator[Equality]:
    it = Equality(seconds=60)
    yield it
    await it.close()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("5 + 13 = 18\nAnswer: 18", "18"),
        ("Answer: 1\nAnswer: 2\nthat is all", "2"),
        ("**Answer:** $18", "$18"),
        ("answer: (10 - 4) * (5 - 1) = 24", "(10 - 4) * (5 - 1) = 24"),
        ("Final Answer: 7", "7"),
        ("Answer:\n\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("Answer: \\boxed{3} apples", "3"),
        ("first \\boxed{1}, then \\boxed{a{b}c} and", "a{b}c"),
        ("cut off: \\boxed{4} and \\boxed{12", "4"),
        ("\\boxed 7", "7"),
        ("it makes 72\n#### 72", "72"),
        ('{"answer": 3, "why": "x"}', "3"),
        ('```json\n{"answer": "blue"}\n```', "blue"),
        ('{"b": 1, "a": 2}', '{"a": 2, "b": 1}'),
        ("So the answer is 5.5. Good bye", "5.5"),
        ("the answer is (B).", "(B)"),
        ("The answer is: x = 4, which is even", "x = 4"),
        (" 1,234 ", "1234"),
        ("(c)", "C"),
    ],
)
def test_find(text: str, answer: str) -> None:
    assert find(text) == answer


@pytest.mark.parametrize(
    "text",
    ["", "I do not know.", "Answer:", "Answer: ...", "\\boxed{", "\\boxed{}", "####", "{not json}", "the answer is"],
)
def test_find_abstains(text: str) -> None:
    assert find(text) is None


def test_marker_is_the_callers() -> None:
    assert find("Result = 4\nAnswer: 5", marker="Result =") == "4"
    assert find("Answer line 4", marker=None) is None
    assert find("Answer: \\boxed{4}", marker=None) == "4"


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("  18 . ", "18"),
        ("$1,234.50", "1234.50"),
        ("\\$5", "5"),
        ("€ 5", "5"),
        ("$\\dfrac{1}{2}$", "\\frac{1}{2}"),
        ("\\(x^2\\)", "x^2"),
        ("\\text{ Paris }.", "Paris"),
        ("\\boxed{\\text{no}}", "no"),
        ("\\left( 1, 2 \\right)", "( 1, 2 )"),
        ("(1,234)", "(1,234)"),
        ("50\\%", "50%"),
        ("1{,}000", "1000"),
        ("(b)", "B"),
        ("C) 18", "C"),
        ("B. Paris", "B"),
        ("J. Smith", "J. Smith"),
        ("option d", "D"),
        ("\u22123", "-3"),
        ("apples", "apples"),
        ("a + b", "a + b"),
        ("(10 - 4) * (5 - 1) = 24", "(10 - 4) * (5 - 1) = 24"),
        ("n!", "n!"),
    ],
)
def test_normalise(value: str, normal: str) -> None:
    assert normalise(value) == normal
    assert normalise(normal) == normal


def test_long_values_are_left_alone() -> None:
    assert normalise("$" * (LIMIT + 1)) == "$" * (LIMIT + 1)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("18", Fraction(18)),
        ("-3", Fraction(-3)),
        ("+.5", Fraction(1, 2)),
        ("3/4", Fraction(3, 4)),
        ("1 1/2", Fraction(3, 2)),
        ("-1 1/2", Fraction(-3, 2)),
        ("1\\frac12", Fraction(3, 2)),
        ("-\\frac{1}{2}", Fraction(-1, 2)),
        ("50%", Fraction(1, 2)),
        ("1e3", Fraction(1000)),
    ],
)
def test_rational(value: str, number: Fraction) -> None:
    assert rational(value) == number


@pytest.mark.parametrize("value", ["", "x", "1/0", "\\frac{1}{0}", "1e999999", "1 2", "--1", "1/2/3", "9" * 301])
def test_not_rational(value: str) -> None:
    assert rational(value) is None


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("1/2", "0.5", True),
        ("\\frac{1}{2}", "0.5", True),
        ("50\\%", "0.5", True),
        ("$1,000.00", "1000", True),
        ("18 apples", "18", True),
        ("18 apples", "18 pears", False),
        ("18", "18.01", False),
        ("Paris", "paris", True),
        ("dear", "read", False),
        ("Paris", "18", False),
        ("B", "18", False),
        ("B", "C", False),
        ("", "0", False),
        ("9" * 400, "9" * 400, True),
        ("9" * 400, "9" * 401, False),
        ("9**9**9**9" * 40, "3", False),
    ],
)
async def test_equality_without_the_worker(equality: Equality, a: str, b: str, same: bool) -> None:
    assert await equality.same(a, b) is same
    assert await equality.same(b, a) is same
    assert equality.started == 0


async def test_equality_by_algebra(equality: Equality) -> None:
    assert await equality.same("2\\sqrt{3}", "\\sqrt{12}")
    assert await equality.same("x=5", "5")
    assert await equality.same("(3, \\frac{\\pi}{2})", "(3,\\pi/2)")
    assert not await equality.same("x+1", "x+2")
    assert equality.started == 1


async def test_cluster_keeps_the_first_of_each_kind(equality: Equality) -> None:
    values = ["0.5", "7", "\\frac{1}{2}", "x+1", "$7", "1+x", "1/2", "x+1"]
    assert await equality.cluster(values) == ["0.5", "7", "0.5", "x+1", "7", "x+1", "0.5", "x+1"]
    assert await equality.cluster([]) == []


async def test_a_comparison_that_hangs_is_killed_and_the_next_one_works(equality: Equality) -> None:
    equality.seconds = 0.5
    assert not await equality.same(TOWER, "3x")
    assert equality.started == 1
    equality.seconds = 60
    assert await equality.same("\\sqrt{4}", "2")
    assert equality.started == 2


async def test_a_value_that_hung_twice_is_compared_as_text_from_then_on(equality: Equality) -> None:
    equality.seconds = 0.5
    for other in ("3x", "4x", "5x", "6x"):
        assert not await equality.same(TOWER, other)
    assert equality.started == 2


async def test_hostile_values_never_raise(equality: Equality) -> None:
    for value in ("\\frac{" * 40, "9**9**9**9", "\x00\n\\", '"]\n["a"', "\ud800+x", "\\int_" * 30):
        assert await equality.same(value, "2x") is False, value
    assert await equality.same("\\sqrt{4}", "2")
    equality.seconds = 0.5
    assert await equality.same("(" * 150 + ")" * 150, "2x") is False


async def test_a_cancelled_comparison_leaves_no_stale_verdict(equality: Equality) -> None:
    assert await equality.same("\\sqrt{4}", "2")
    task = asyncio.create_task(equality.same(TOWER, "3x"))
    while not equality._turn.locked():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await equality.same("\\sqrt{9}", "3")
    assert not await equality.same("\\sqrt{9}", "4")


async def test_without_its_process_equality_says_no() -> None:
    equality = Equality(start_seconds=0.0001)
    assert not await equality.same("x+1", "1+x")
    await equality.close()
    await equality.close()


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 150_000,
        "{" * 1_000_000,
        "\n" * 1_000_000,
        "answer is " * 100_000,
        "Answer: " + "9" * 1_000_000,
        '{"answer": ' + "[" * 50_000 + "}",
        "#### " * 200_000,
        "\\frac" * 200_000,
    ],
)
def test_megabytes_are_survived(text: str) -> None:
    found = find(text)
    assert found is None or len(normalise(found)) <= 1_000_000


def test_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = 'import sys, reason_engine.answers; sys.exit(bool({"sympy", "math_verify", "torch"} & {*sys.modules}))'
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
