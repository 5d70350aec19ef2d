"""Sums written in an answer are worked out; what only looks like one is not."""

from __future__ import annotations

import pytest

from reason_engine.answers import find


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\boxed{12 \times 0.5}", "6"),
        (r"\boxed{(3 + 4) * 2}", "14"),
        (r"\boxed{20 - 5}", "15"),
        (r"\boxed{3 + 4 = 7}", "7"),
        (r"\boxed{3/4}", "0.75"),
        (r"\boxed{-5}", "-5"),
        ("Answer: 2 * 3", "6"),
    ],
)
def test_a_written_sum_is_worked_out(text: str, value: str) -> None:
    assert find(text, "number") == value


def test_a_long_sum_is_left_alone() -> None:
    assert find("\\boxed{" + "1 * " * 30 + "2}", "number") == "2"
    assert find("\\boxed{" + "9 * " * 30 + "2}", "number") == "2"


def test_a_sum_without_a_value_does_no_harm() -> None:
    find(r"\boxed{1 + 1/0}", "number")
