"""The answer in a text, read by its kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from reason_engine.answers.find import braced, normalise, rational
from reason_engine.answers.find import find as find_text
from reason_engine.answers.kind import AnswerKind, AnswerSpec


@dataclass(frozen=True, slots=True)
class Reading:
    """A value normalised by its kind, how sure its place was, and by which rule it was found."""

    value: str
    strength: Literal["strong", "weak"]
    rule: str


def read(text: str, spec: AnswerSpec, *, marker: str | None = "Answer:", cut: bool = False) -> Reading | None:
    """The answer that a text gives, or None. `cut`: a limit ended the text, so its last line is no answer."""
    value = find_text(text, marker)
    if value is not None:
        value = normalise(value)
        if spec.kind == "number":
            value = _number(value)
        return Reading(value, "strong", "cue") if value else None
    lines = [line for line in text[-4000:].splitlines() if line.strip()]
    if spec.kind == "number" and lines and not cut and (value := _number(lines[-1])):
        return Reading(value, "weak", "last-line")
    return None


def find(text: str, kind: AnswerKind | None = None, *, marker: str | None = "Answer:") -> str | None:
    """The value of an answer of this kind; of no kind, the answer as it stands in the text."""
    if kind is None:
        return find_text(text, marker)
    found = read(text, AnswerSpec(kind), marker=marker)
    return found and found.value


def closed(text: str, spec: AnswerSpec, *, marker: str | None = "Answer:") -> bool:
    """Whether the text already holds a finished answer: a closed box that is not empty, or a marker's line that has
    ended."""
    place = text.rfind("\\boxed{")
    if place >= 0 and (braced(text, place + 7) or "").strip():
        return True
    lines = text.split("\n")[:-1]
    return marker is not None and any(
        line.strip(" \t>*#_-`").casefold().startswith(marker.casefold()) and line.rstrip(" *_`")[-1:] != ":"
        for line in lines
    )


def revise(spec: AnswerSpec, contents: Sequence[str]) -> AnswerSpec:
    """The kind after a look at what the first paths wrote: numbers where at least half hold a marked number, free text
    where at least half hold no value."""
    if not contents or spec.named or spec.kind in ("tool", "json", "code", "choice"):
        return spec
    readings = [read(text, replace(spec, kind="number")) for text in contents]
    if 2 * sum(found is not None and found.strength == "strong" for found in readings) >= len(contents):
        return replace(spec, kind="number")
    if 2 * sum(read(text, spec) is None for text in contents) >= len(contents):
        return replace(spec, kind="free")
    return spec


def _number(value: str) -> str | None:
    if rational(value) is not None:
        return value
    after = value.rpartition("=")[2]
    found = _NUMBERS.findall(after) or _NUMBERS.findall(value)
    return normalise(found[0] if "=" in value and found else found[-1]) if found else None


_NUMBERS = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?: ?/ ?\d+)?%?")
