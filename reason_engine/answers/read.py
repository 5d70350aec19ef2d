"""The answer in a text, read by its kind, with the strength of the place where it stood.

First the cues, of which the last counts, then the end of the text, which is weak. What follows the last thought is
read; marks of a thought inside a line do no harm. Hostile text is safe: cues are looked for in the last 4,000
characters, programs and JSON in the last 100,000.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from reason_engine.answers.cues import REACH, as_written, find_cues
from reason_engine.answers.kind import AnswerKind, AnswerSpec
from reason_engine.answers.rules import of_cue, of_end, of_whole
from reason_engine.answers.values.number import quantity, rational
from reason_engine.answers.values.plain import LIMIT, braced, strip
from reason_engine.answers.values.programs import found_program
from reason_engine.answers.values.structured import found_json, whole_object


@dataclass(frozen=True, slots=True)
class Reading:
    """A value in the spelling of its kind. `strong` where a cue marked it, `weak` where it only stood at the end;
    `rule` says which cue or place."""

    value: str
    strength: Literal["strong", "weak"]
    rule: str


def read(text: str, spec: AnswerSpec, *, marker: str | None = "Answer:", cut: bool = False) -> Reading | None:
    """The answer of a kind that a text gives, None where it gives none. `marker`: what an answer's line opens with.
    `cut`: a limit ended the text, so that only a cue counts.

    Free text has a value only where a marker, a box or the like names one; a tool call is the parser's.
    """
    text = _after_thought(text[-_LONGEST:])
    if spec.kind in ("code", "json"):
        value = found_program(text, spec.entry_point, cut=cut) if spec.kind == "code" else found_json(text)
        return Reading(value, "strong", "program" if spec.kind == "code" else "json") if value else None
    if spec.kind == "tool":
        return None
    for cue in find_cues(_ended(text) if cut else text, marker):
        for line in cue.lines:
            if value := of_cue(line, cue, spec):
                return Reading(value, "strong", cue.rule)
    if cut or _ends_in_a_box(text):
        return None
    if value := of_whole(text, spec):
        return Reading(value, "strong", "whole")
    value, rule = of_end(text[-REACH:], spec)
    return Reading(value, "weak", rule) if value else None


def find(text: str, kind: AnswerKind | None = None, *, marker: str | None = "Answer:") -> str | None:
    """The value of the answer of a kind; of no kind known, any short value, as it stands in the text."""
    if kind is not None:
        found = read(text, AnswerSpec(kind), marker=marker)
        return found and found.value
    text = _after_thought(text[-_LONGEST:])
    marked = (as_written(cue) for cue in find_cues(text, marker))
    return next((value for value in marked if strip(value)), None) or _bare(text)


def closed(text: str, spec: AnswerSpec, *, marker: str | None = "Answer:") -> bool:
    """Whether a text that may go on holds a finished answer already: a closed box with a value, or a marker's line
    with a value that has ended. A heading alone is no end."""
    found = read(text, spec, marker=marker, cut=True)
    if found is None or found.rule == "box":
        return found is not None
    ended = read(text[: text.rfind("\n") + 1], spec, marker=marker, cut=True)
    return ended is not None and ended.rule in _MARKED


def revise(spec: AnswerSpec, contents: Sequence[str], *, marker: str | None = "Answer:") -> AnswerSpec:
    """The kind after a look at what the first paths wrote.

    A number where at least half of them mark one, whatever the question said; free text where at least half hold no
    value. Choices that were read, JSON and tool calls stay. A question for a number stays one, however few of them
    answer it, unless at least half say something in which no number stands: a model that loses its way in a calculation
    says nothing of the question, and a vote over the few that did not is worth more than none.
    """
    if not contents or spec.kind in ("json", "tool"):
        return spec
    readings = [read(text, spec, marker=marker) for text in contents]
    if spec.kind in ("choice", "code") and 2 * sum(one is not None for one in readings) > len(contents):
        return spec
    if 2 * sum(_marks_number(text, marker) for text in contents) >= len(contents):
        return replace(spec, kind="number")
    unread = [text for text, one in zip(contents, readings, strict=True) if one is None]
    if spec.kind in ("number", "expression"):
        unread = [text for text in unread if text.strip() and not _CALCULATES.search(_after_thought(text))]
    if 2 * len(unread) >= len(contents):
        return replace(spec, kind="free")
    return spec


def _marks_number(text: str, marker: str | None) -> bool:
    cue = next(iter(find_cues(_after_thought(text[-_LONGEST:]), marker)), None)
    return cue is not None and cue.rule in ("box", *_MARKED) and quantity(cue.lines[0]) is not None


def _ended(text: str) -> str:
    """A text that was cut without its last line or sentence, unless a box is closed in it."""
    end = max(text.rfind("\n"), text.rfind(". ")) + 1
    return text if any(cue.rule == "box" for cue in find_cues(text[end:], None)) else text[:end]


def _ends_in_a_box(text: str) -> bool:
    place = text.rfind("\\boxed{")
    return place >= 0 and braced(text, place + len("\\boxed{")) is None


def _after_thought(text: str) -> str:
    """What follows the last mark that ends a thought; nothing where a thought is still open."""
    if marks := list(_THOUGHT_END.finditer(text)):
        return text[marks[-1].end() :]
    return "" if text.lstrip().startswith("<think>") else text


def _bare(text: str) -> str | None:
    """A text that is one JSON object, a number or a letter."""
    whole = whole_object(text)
    if whole is not None:
        return json.dumps(whole, sort_keys=True, ensure_ascii=False)
    value = strip(text) if len(text) <= LIMIT else ""
    return value if rational(value) is not None or re.fullmatch("[A-J]", value) else None


_LONGEST = 100_000
_CALCULATES = re.compile(r"\d|[=+^\\]")
_MARKED = ("marker", "label", "hashes", "key")
_THOUGHT_END = re.compile(r"(?:^|\n)[ \t]*</think>|</think>[ \t]*(?:\n|$)")
