"""Exact arithmetic of + - * / and brackets, by recursive descent; text is parsed, never evaluated as code.

sum = product (("+" | "-") product)*      product = factor (("*" | "/") factor)*      factor = integer | "(" sum ")"
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

LENGTH, DEPTH = 200, 40


def evaluate(text: str, *, signed: bool = False) -> tuple[Fraction | None, tuple[int, ...]]:
    """The value of an expression over non-negative integers, and the integers as they stand in it.

    The value is None where the text is no such expression, divides by zero, is over 200 characters or is nested
    over 40 deep. `signed`: one leading minus is allowed.
    """
    text = text.strip()
    if signed and text.startswith("-"):
        value, numbers = evaluate(text[1:])
        return (None if value is None else -value), numbers
    used: list[int] = []
    try:
        return _whole(text, used), tuple(used)
    except (ValueError, ZeroDivisionError):
        return None, ()


def apply(operator: str, a: Fraction, b: Fraction) -> Fraction | None:
    """The result of one operation; None for a division by zero."""
    if operator == "/":
        return a / b if b else None
    return a + b if operator == "+" else a - b if operator == "-" else a * b


def _whole(text: str, used: list[int]) -> Fraction:
    if len(text) > LENGTH:
        raise ValueError("too long")
    tokens = _tokens(text)
    value, after = _sum(tokens, next(tokens), used, 0)
    if after:
        raise ValueError(f"unexpected {after!r}")
    return value


def _tokens(text: str) -> Iterator[str]:
    """The tokens, then the empty string for ever."""
    for old, new in _SIGNS:
        text = text.replace(old, new)
    place = 0
    while match := _TOKEN.match(text, place):
        yield match[1]
        place = match.end()
    if text[place:].strip():
        raise ValueError(f"unexpected {text[place:][:1]!r}")
    while True:
        yield ""


def _sum(tokens: Iterator[str], token: str, used: list[int], depth: int) -> tuple[Fraction, str]:
    value, token = _product(tokens, token, used, depth)
    while token in ("+", "-"):
        sign = 1 if token == "+" else -1
        term, token = _product(tokens, next(tokens), used, depth)
        value += sign * term
    return value, token


def _product(tokens: Iterator[str], token: str, used: list[int], depth: int) -> tuple[Fraction, str]:
    value, token = _factor(tokens, token, used, depth)
    while token in ("*", "/"):
        divide = token == "/"
        factor, token = _factor(tokens, next(tokens), used, depth)
        value = value / factor if divide else value * factor
    return value, token


def _factor(tokens: Iterator[str], token: str, used: list[int], depth: int) -> tuple[Fraction, str]:
    if token == "(" and depth < DEPTH:
        value, token = _sum(tokens, next(tokens), used, depth + 1)
        if token != ")":
            raise ValueError("a bracket is open")
        return value, next(tokens)
    if not token.isdecimal():
        raise ValueError(f"a number is wanted, not {token!r}")
    used.append(int(token))
    return Fraction(used[-1]), next(tokens)


_TOKEN = re.compile(r"[ \t]*([0-9]{1,12}|[-+*/()])")
_SIGNS = (
    ("\u00d7", "*"),
    ("\u00f7", "/"),
    ("\u2212", "-"),
    ("\\times", "*"),
    ("\\div", "/"),
    ("\\cdot", "*"),
)
