"""The expression parser against hand-computed values and hostile text."""

from __future__ import annotations

from fractions import Fraction

import pytest

from reason_engine.verifiers.arithmetic import DEPTH, evaluate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("24", Fraction(24)),
        ("2 + 3 * 4", Fraction(14)),
        ("(2 + 3) * 4", Fraction(20)),
        ("10 - 4 - 3", Fraction(3)),
        ("8 / (3 - 8 / 3)", Fraction(24)),
        ("12 / 4 / 3", Fraction(1)),
        ("2 \u00d7 3 \u2212 6 \u00f7 3", Fraction(4)),
        ("2 \\times (3 + 4)", Fraction(14)),
        ("(" * DEPTH + "7" + ")" * DEPTH, Fraction(7)),
    ],
)
def test_value(text: str, value: Fraction) -> None:
    assert evaluate(text)[0] == value


def test_numbers_come_back_in_the_order_of_the_text() -> None:
    assert evaluate("(10 - 4) * (5 - 1)") == (Fraction(24), (10, 4, 5, 1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "2 +",
        "2 3",
        "(2",
        "2)",
        "()",
        "2(3)",
        "2 ** 3",
        "2 // 3",
        "-2 + 26",
        "1 / 0",
        "1 / (2 - 2)",
        "x + 1",
        "__import__('os')",
        "1.5 * 16",
        "٣",
        "²",
        "(" * (DEPTH + 1) + "7" + ")" * (DEPTH + 1),
        "(" * 100_000,
        "9" * 13,
        "1+" * 500_000 + "1",
    ],
)
def test_no_value(text: str) -> None:
    assert evaluate(text)[0] is None


def test_a_sign_is_allowed_only_where_asked_for() -> None:
    assert evaluate("-6", signed=True)[0] == -6
    assert evaluate("--6", signed=True)[0] is None
    assert evaluate("-6")[0] is None
