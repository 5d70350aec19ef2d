r"""Final answers: find them in a text, normalise them, tell whether two are the same.

`find` takes, in this order: the last line that opens with the marker, the last `\boxed{}`, the last `#### x`
line, a text that is one JSON object, the last "the answer is x", a text that is nothing but a number or a choice
letter. None is an abstention, and an abstention is no vote. Hostile text is safe: the work is linear in its length.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction


def find(text: str, marker: str | None = "Answer:") -> str | None:
    """The answer as it stands in `text`, or None. `marker`: what an answer line opens with, in any case."""
    text = text[-_TAIL:]
    found = _marked(text, marker) if marker else None
    for reader in (_boxed, _hashes, _json, _phrase, _bare):
        if found is None:
            found = reader(text)
    return found if found is not None and normalise(found) else None


def _marked(text: str, marker: str) -> str | None:
    wanted, after = marker.casefold(), ""
    for line in reversed(text.splitlines()):
        body = line.strip(" \t>*#_-`")
        for opening in ("", "final ", "the final "):
            if body.casefold().startswith(opening + wanted):
                value = body[len(opening + wanted) :].strip(" \t*_`") or after
                return _boxed(value) or value or None
        after = line.strip() or after  # the line below a marker that stands alone
    return None


def _boxed(text: str) -> str | None:
    place = len(text)
    for _ in range(_TRIES):
        place = text.rfind("\\boxed", 0, place)
        if place < 0:
            return None
        start = place + len("\\boxed")
        if text[start : start + 1] == "{" and (inner := braced(text, start + 1)) is not None and inner.strip():
            return inner.strip()
        if match := _NAKED_BOX.match(text, start):
            return match[1]
    return None


def _hashes(text: str) -> str | None:
    lines = (line[5:].strip() for line in reversed(text.splitlines()) if line.startswith("#### "))
    return next((line for line in lines if line), None)


def _json(text: str) -> str | None:
    body = text.strip()
    if match := _FENCE.fullmatch(body):
        body = match[1].strip()
    if not (body.startswith("{") and body.endswith("}")):
        return None
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    value = next((data[key] for key in ("answer", "final_answer") if key in data), data)
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _phrase(text: str) -> str | None:
    value = None
    for match in _ANSWER_IS.finditer(text):
        value = text[match.end() : match.end() + LIMIT].lstrip(" \t*").split("\n")[0]
    return _SENTENCE_END.split(value)[0].strip() or None if value is not None else None


def _bare(text: str) -> str | None:
    if len(text) > LIMIT:
        return None
    value = normalise(text)
    return value if rational(value) is not None or re.fullmatch("[A-J]", value) else None


_TAIL, _TRIES = 100_000, 32
_NAKED_BOX = re.compile(r" ?([A-Za-z0-9])(?![A-Za-z0-9])")
_FENCE = re.compile(r"```(?:json)?\n(.*)\n```", re.DOTALL)
_ANSWER_IS = re.compile(r"\banswer(?: {1,3}is| ?:) ?:?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.;!](?: |$)|, (?=[a-z])")


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
