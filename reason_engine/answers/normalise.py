"""Answers in one spelling, and the exact number that an answer writes. Part of `answers`."""

from __future__ import annotations

import re
from fractions import Fraction

LIMIT = 300
"""Longest value that is normalised or compared as mathematics; longer ones are equal only as text."""


def normalise(value: str) -> str:
    """The value without what carries no meaning. Idempotent.

    That is: wrappers of Markdown and LaTeX, money signs, thousands commas of a lone number, a trailing dot, the
    case of a choice letter.
    """
    value = " ".join(value.split())
    if len(value) > LIMIT:
        return value
    for _ in range(LIMIT):  # every pass that changes something but the case shortens the value
        before, value = value, _strip_once(value)
        if value == before:
            break
    return value


def rational(value: str) -> Fraction | None:
    r"""The exact number that a normalised value writes: `-3`, `.5`, `1e3`, `1/2`, `\frac{1}{2}`, `1 1/2`, `50%`."""
    if len(value) > LIMIT:
        return None
    body, percent = (value[:-1].rstrip(), 100) if value.endswith("%") else (value, 1)
    body = _FRAC.sub(_slash, body)
    if not (match := _NUMBER.fullmatch(body)):
        return None
    whole, top, bottom = match["whole"], match["top"], match["bottom"] or "1"
    if Fraction(bottom) == 0:
        return None
    number = (Fraction(whole) if whole else 0) + Fraction(top) / Fraction(bottom)
    return (-number if match["sign"] == "-" else number) / percent


def braced(text: str, start: int) -> str | None:
    """What stands between the brace before `start` and its partner; None where it is far away or missing."""
    depth = 1
    for place in range(start, min(len(text), start + 4 * LIMIT)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start:place]
    return None


def _strip_once(value: str) -> str:
    for old, new in _SIGNS:
        value = value.replace(old, new)
    value = _SPACING.sub("", _SIZE.sub("", _FRACS.sub(r"\\frac", value)))
    value = value.replace("\\ ", " ").replace("~", " ").strip("*` \t").rstrip(" .;,").lstrip("\u20ac\u00a3 ")
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]")):
        if value.startswith(opening) and value.endswith(closing):
            value = value[2:-2].strip()
    if match := _WRAPPER.match(value):
        inner = braced(value, match.end())
        if inner is not None and match.end() + len(inner) + 1 == len(value):
            value = inner.strip()
    if _THOUSANDS.fullmatch(value):
        value = value.replace(",", "")
    if match := _LETTER.fullmatch(value):
        value = (match[1] or match[2] or match[3]).upper()
    return " ".join(value.split())


def _slash(match: re.Match[str]) -> str:
    whole = f"{match['before']} " if match["before"] else ""
    return f"{whole}{match['a'] or match['c']}/{match['b'] or match['d']}"


_SIGNS = (("\u2212", "-"), ("{,}", ","), ("\\%", "%"), ("\\$", ""), ("$", ""))
_FRAC = re.compile(
    r"(?P<before>\d+)? ?\\frac ?"
    r"(?:\{ ?(?P<a>\d+) ?\} ?\{ ?(?P<b>\d+) ?\}|(?P<c>\d) ?(?P<d>\d))"
)
_NUMBER = re.compile(
    r"(?P<sign>[-+]?) ?(?:(?P<whole>\d+) (?=\d+ ?/))?"
    r"(?P<top>\d+\.?\d*(?:[eE][-+]?\d{1,2})?|\.\d+)(?: ?/ ?(?P<bottom>\d+))?"
)
_SPACING = re.compile(r"\\[!,;:]")
_SIZE = re.compile(r"\\(?:left|right|displaystyle|Big|big)(?![A-Za-z])")
_FRACS = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_WRAPPER = re.compile(r"\\(?:boxed|fbox|text|textbf|textrm|mathrm|mathbf|mbox)\{")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?%?(?: [A-Za-z ]+)?")
_LETTER = re.compile(
    r"(?:(?:[Oo]ption|[Cc]hoice) )?"
    r"(?:\(?([A-Ja-j])\)?|\(?([A-Ja-j])\)[.:]? ?[A-Za-z0-9$].*|([A-E])[.:] .*)"
)
