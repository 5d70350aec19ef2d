r"""Final answers: find them in a text, normalise them, tell whether two are the same.

`find` takes, in this order: the last line that opens with the marker, the last `\boxed{}`, the last `#### x`
line, a text that is one JSON object, the last "the answer is x", a text that is nothing but a number or a choice
letter. None is an abstention, and an abstention is no vote. Hostile text is safe: the work is linear in its length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from reason_engine.answers.normalise import LIMIT, braced, normalise, rational


def find(text: str, marker: str | None = "Answer:") -> str | None:
    """The answer as it stands in `text`, or None. `marker`: what an answer line opens with, in any case."""
    text = text[-_TAIL:]
    ways: tuple[Callable[[str], str | None], ...] = (_boxed, _hashes, _json, _phrase, _bare)
    found = _marked(text, marker) if marker else None
    for way in ways:
        if found is not None:
            break
        found = way(text)
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
    for line in reversed(text.splitlines()):
        if line.startswith("#### ") and line[5:].strip():
            return line[5:].strip()
    return None


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
