"""What holds for every text: normal forms are stable, reading never fails and is linear in the length."""

from __future__ import annotations

import time
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reason_engine.answers import AnswerKind, AnswerSpec, closed, infer, normalise, read
from reason_engine.answers.values.number import quantity, rational, show

KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)
PIECES = (
    "\\boxed{",
    "}",
    "Answer:",
    "the answer is ",
    "x = ",
    "1/2",
    "-",
    "3",
    ",",
    "%",
    "\\frac{1}{2}",
    "(",
    ")",
    "a",
    "B",
)
PIECES += (
    " ",
    "\n",
    "$",
    "**",
    "\\text{ cm}",
    "yes",
    "#### ",
    '{"answer": ',
    "```",
    "def f(): ",
    "</think>",
    "or",
    "=",
    ".",
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=80)


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.sampled_from((*KINDS, None)))
def test_normal_forms_are_stable(value: str, kind: AnswerKind | None) -> None:
    normal = normalise(value, kind)
    assert normalise(normal, kind) == normal


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.sampled_from(KINDS))
def test_a_value_is_in_its_normal_form(text: str, kind: AnswerKind) -> None:
    found = read(text, AnswerSpec(kind))
    assert found is None or (found.value and normalise(found.value, kind) == found.value)
    assert isinstance(closed(text, AnswerSpec(kind)), bool)
    assert infer(text).kind in KINDS


@given(st.fractions())
def test_numbers_are_exact(number: object) -> None:
    from fractions import Fraction

    assert isinstance(number, Fraction)
    text = show(number)
    if len(text) < 300:
        assert rational(text) == number
        assert quantity(f"{text} apples") == (number, "apples")


LONG = (
    "\\boxed{",
    "{",
    "\n",
    "answer is ",
    "Answer: ",
    "#### ",
    "\\frac",
    "```\n",
    "```python\n",
    "**",
    "$",
    "\\[",
    "1,",
)
LONG += ("</think>", "1 ", '{"answer": "', "(A) ", "= ", "[", "the answer for ")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piece", LONG)
def test_time_is_linear(kind: AnswerKind, piece: str) -> None:
    """Ten times the text takes nothing like a hundred times as long."""

    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        began = time.process_time()
        read(text, AnswerSpec(kind))
        closed(text, AnswerSpec(kind))
        return time.process_time() - began

    assert seconds(100_000) < 40 * max(seconds(10_000), 0.02)
