"""Exact arithmetic over integers: the value of an expression, and the numbers in it.

Text is parsed by recursive descent, never evaluated as code:

    sum = product (("+" | "-") product)*    product = factor (("*" | "/") factor)*    factor = integer | "(" sum ")"
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

OPERATIONS: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip
LENGTH, DEPTH = 200, 40
"""Characters and nested brackets of an expression beyond which it has no value."""


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
        if len(text) > LENGTH:
            raise ValueError("too long")
        tokens = _tokens(text)
        value, after = _operations(tokens, next(tokens), used, 0)
        if after:
            raise ValueError(f"unexpected {after!r}")
        return value, tuple(used)
    except (ValueError, ZeroDivisionError):
        return None, ()


def _tokens(text: str) -> Iterator[str]:
    """The tokens, then the empty string for ever."""
    text, place = _ascii(text), 0
    while match := _TOKEN.match(text, place):
        yield match[1]
        place = match.end()
    if text[place:].strip():
        raise ValueError(f"unexpected {text[place:][:1]!r}")
    while True:
        yield ""


def _operations(tokens: Iterator[str], token: str, used: list[int], depth: int, level: int = 0) -> tuple[Fraction, str]:
    """The value of a sum (level 0) or product (level 1) that begins with `token`, and the token after it."""
    if level == len(_LEVELS):
        return _factor(tokens, token, used, depth)
    value, token = _operations(tokens, token, used, depth, level + 1)
    while token in _LEVELS[level]:
        operation = OPERATIONS[token]
        right, token = _operations(tokens, next(tokens), used, depth, level + 1)
        value = operation(value, right)
    return value, token


def _factor(tokens: Iterator[str], token: str, used: list[int], depth: int) -> tuple[Fraction, str]:
    if token == "(" and depth < DEPTH:
        value, token = _operations(tokens, next(tokens), used, depth + 1)
        if token != ")":
            raise ValueError("a bracket is open")
        return value, next(tokens)
    if not token.isdecimal():
        raise ValueError(f"a number is wanted, not {token!r}")
    used.append(int(token))
    return Fraction(used[-1]), next(tokens)


def _ascii(text: str) -> str:
    for old, new in _OPERATORS:
        text = text.replace(old, new)
    return text


_OPERATORS = (
    ("\u00d7", "*"), ("\u00f7", "/"), ("\u2212", "-"), ("\\times", "*"), ("\\div", "/"), ("\\cdot", "*"),
)  # fmt: skip
_LEVELS = (("+", "-"), ("*", "/"))
_TOKEN = re.compile(r"[ \t]*([0-9]{1,12}|[-+*/()])")
