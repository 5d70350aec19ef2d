"""Values of no known kind: stripped of what carries no meaning in any of them. Part of `answers`."""

from __future__ import annotations

import re

LIMIT = 300
"""Longest value that is normalised or compared as mathematics; longer ones are equal only as text."""


def strip(value: str) -> str:
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


def braced(text: str, start: int) -> str | None:
    """What stands between the brace before `start` and its partner; None where it is far away or missing."""
    depth = 1
    for place in range(start, min(len(text), start + 4 * LIMIT)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start:place]
    return None


def unwrap(value: str) -> str:
    """The value out of the Markdown, the delimiters and the LaTeX commands around all of it."""
    for _ in range(LIMIT):
        before, value = value, _unwrap_once(value.strip("*` \t"))
        if value == before:
            break
    return value


def _strip_once(value: str) -> str:
    for old, new in _SIGNS:
        value = value.replace(old, new)
    value = _SPACING.sub("", _SIZE.sub("", _FRACS.sub(r"\\frac", value)))
    value = value.replace("\\ ", " ").replace("~", " ").strip("*` \t").rstrip(" .;,").lstrip("\u20ac\u00a3 ")
    value = _unwrap_once(value)
    if _THOUSANDS.fullmatch(value):
        value = value.replace(",", "")
    if match := _LETTER.fullmatch(value):
        value = (match[1] or match[2] or match[3]).upper()
    return " ".join(value.split())


def _unwrap_once(value: str) -> str:
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$")):
        inner = value[len(opening) : -len(closing)]
        whole = len(value) > 2 * len(opening) and value.startswith(opening) and value.endswith(closing)
        if whole and opening not in inner:
            value = inner.strip()
    if match := _WRAPPER.match(value):
        inner = braced(value, match.end())
        if inner is not None and match.end() + len(inner) + 1 == len(value):
            value = inner.strip()
    return value


_SIGNS = (("\u2212", "-"), ("{,}", ","), ("\\%", "%"), ("\\$", ""), ("$", ""))
_SPACING = re.compile(r"\\[!,;:]")
_SIZE = re.compile(r"\\(?:left|right|displaystyle|Big|big)(?![A-Za-z])")
_FRACS = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_WRAPPER = re.compile(r"\\(?:boxed|fbox|text|textbf|textrm|mathrm|mathbf|mbox)\{")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?%?(?: [A-Za-z ]+)?")
_LETTER = re.compile(
    r"(?:(?:[Oo]ption|[Cc]hoice) )?"
    r"(?:\(?([A-Ja-j])\)?|\(?([A-Ja-j])\)[.:]? ?[A-Za-z0-9$].*|([A-E])[.:] .*)"
)
