"""Expressions, equations, tuples and lists as values: `x = 5` is `5`, `x = 5 or x = -3` is `-3, 5`, a unit after a
number goes, an interval or a tuple keeps its order. Part of `answers`.
"""

from __future__ import annotations

import re

from reason_engine.answers.values.number import rational
from reason_engine.answers.values.plain import LIMIT, strip


def expression(value: str) -> str:
    """The value of an expression, an equation or a list of them, so written that equal ones are often equal texts.
    Idempotent."""
    for _ in range(LIMIT):
        before, value = value, _once(value)
        if value == before:
            break
    return value


def last_mathematics(text: str) -> str | None:
    """The last delimited mathematics of a text; of a chain of equals signs its end, of a sum that is worked out its
    result."""
    found = None
    for match in _DELIMITED.finditer(text):
        inner = next(group for group in match.groups() if group is not None).strip()
        found = inner if inner and not _PRICE.match(inner) else found
    if found is None:
        return None
    left, _, right = found.rpartition("=")
    worked = "=" in left or not _UNKNOWN.search(_COMMAND.sub("", left))
    return right.strip() if left and right.strip() and worked else found


def is_prose(value: str, most: int = 3) -> bool:
    """Whether a value has more than so many words: sentences are no expressions."""
    return sum(word.casefold() not in FUNCTIONS for word in _WORD.findall(_COMMAND.sub("", value))) > most


def is_list(value: str) -> bool:
    """Whether a value is several numbers with commas between."""
    parts = _split(strip(value))
    return len(parts) > 1 and all(rational(part) is not None for part in parts)


def is_symbolic(value: str) -> bool:
    """Whether a value has roots, constants or unknowns rather than a number alone."""
    return bool(_SYMBOLIC.search(value)) and not is_prose(value, 2)


def _once(value: str) -> str:
    value = strip(value)
    if len(value) > LIMIT:
        return value
    value = strip(_DEGREES.sub("", value))
    while match := _TRAILING_UNIT.search(value):
        value = strip(value[: match.start()])
    parts = [_side(part) for part in _split(_JOINED.sub(",", value))]
    return strip(parts[0] if len(parts) == 1 else ", ".join(sorted(map(strip, parts), key=_order)))


def _side(part: str) -> str:
    """The other side of an equation whose one side is a lone letter."""
    left, equals, right = part.partition("=")
    if not equals or "=" in right:
        return part.strip()
    if _LETTER.fullmatch(left.strip()) and right.strip():
        return right.strip()
    return left.strip() if _LETTER.fullmatch(right.strip()) and left.strip() else part.strip()


def _split(value: str) -> list[str]:
    """The parts between commas outside of every bracket."""
    parts, depth = [""], 0
    for char in value:
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    whole = [part.strip() for part in parts]
    return whole if all(whole) and depth == 0 else [value]


def _order(part: str) -> tuple[float, str]:
    number = rational(part)
    return (float("inf") if number is None else float(number), part)


_DEGREES = re.compile(r"(?<=[\d}]) ?\^ ?\{? ?\\circ ?\}?|(?<=\d)\u00b0")
_TRAILING_UNIT = re.compile(r"(?<=[\w})]) ?\\(?:text|mbox|mathrm|textrm) ?\{[^{}]*\}(?:\^ ?\{?\d\}?)?$")
_JOINED = re.compile(r" (?:or|and) |(?:\\(?:text|mbox)\{ ?(?:or|and) ?\})|,? ?\\(?:quad|qquad)(?![A-Za-z]) ?")
_LETTER = re.compile(r"[A-Za-z](?:\([a-z]\))?|\\(?:theta|alpha|beta|lambda|phi)")
_DELIMITED = re.compile(
    r"\$\$([^$]+)\$\$|\\\[(.+?)\\\]|\\\((.+?)\\\)|(?<![\\$\w])\$([^$\n]+?)(?<!\\)\$(?!\d)", re.DOTALL
)
_PRICE = re.compile(r"[\d.,]+ (?:[a-z]{2,} ){2,}")
_SYMBOLIC = re.compile(
    r"\\(?:sqrt|pi|theta|alpha|beta|infty|log|ln|sin|cos|tan|pm|cup|in|begin|binom)(?![A-Za-z])|\d\(|\)\(|"
    r"(?<![A-Za-z\\])[b-zB-Z](?![A-Za-z'\u2019])|[A-Za-z)]\^"
)
_UNKNOWN = re.compile(r"[A-Za-z]")
_COMMAND = re.compile(r"\\(?:text|mbox|mathrm|textrm|begin|end|operatorname)\{[^{}]*\}|\\[A-Za-z]+")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_CIRCULAR = ("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh")
FUNCTIONS = frozenset((*_CIRCULAR, "log", "ln", "exp", "sqrt", "frac", "min", "max", "mod", "gcd", "lcm", "pi"))
"""Words that are mathematics."""
