r"""Where a text says that its answer comes. Part of `answers`.

box: `\boxed{}` or `\fbox{}`, closed and not empty. marker: a line that opens with the caller's marker; label: with
"answer" and `:`, `is` or `=`, or such a heading alone. hashes: `#### x`. key: the JSON key `answer` or `final_answer`.
phrase: "the answer is" in a sentence. Of these the last one counts; where none gives a value, "the result is". A value
stands on its cue's line, or, where that holds only openers, on one of the next four; one that opens with a cue again
is read again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from reason_engine.answers.cue_words import (
    AGAIN,
    BOX,
    DECORATION,
    DOUBT,
    EDGE,
    HEADING,
    KEY,
    LABEL,
    NO_VALUE,
    OPENERS,
    PHRASE,
    RESULT,
    SENTENCE_END,
)
from reason_engine.answers.values.plain import braced
from reason_engine.answers.values.structured import whole_object

REACH = 4_000
"""Characters at the end of a text in which cues are looked for."""


@dataclass(frozen=True, slots=True)
class Cue:
    """`lines`: where the value may stand, in order. `late`: few lines come after it, so a sentence may hold the value.
    `rank`: cues of a lower one come first."""

    rule: str
    lines: tuple[str, ...]
    place: int
    late: bool = True
    rank: int = 0


def find_cues(text: str, marker: str | None) -> list[Cue]:
    """Every cue in the end of a text, the one that counts most first."""
    text = text[-REACH:]
    found = [*_boxes(text), *_labels(text, marker), *_keys(text), *_phrases(text, marker)]
    return sorted(found, key=lambda cue: (cue.rank, -cue.place))


def without_cue(value: str) -> str:
    """A value without the cues that it opens with: `The answer is 18.` is `18.`"""
    for _ in range(_REPEATS):
        if not (match := AGAIN.match(value)):
            break
        value = value[match.end() :].strip(EDGE)
    return value


def as_written(cue: Cue) -> str:
    """The value of a cue as it stands in the text; of a sentence, up to its end."""
    value = cue.lines[0]
    return SENTENCE_END.split(value)[0].strip(EDGE) if cue.rule == "label" else value


def _boxes(text: str) -> Iterator[Cue]:
    for match in BOX.finditer(text):
        inner = match[1] or braced(text, match.end()) or ""
        if inner.strip():
            yield Cue("box", (inner.strip(),), match.start())


def _labels(text: str, marker: str | None) -> Iterator[Cue]:
    lines, place = text.split("\n"), 0
    filled = [number for number, line in enumerate(lines) if line.strip()]
    late = filled[-_LATE] if len(filled) >= _LATE else 0
    wanted = re.compile(rf"(?:the )?(?:final )?{re.escape(marker)}(?P<rest>.*)", re.IGNORECASE) if marker else None
    own = _others(marker)
    for number, line in enumerate(lines):
        body = line.lstrip(DECORATION).rstrip(EDGE)
        for rule, rank, match in (
            ("marker", 0, wanted and wanted.match(body)),
            ("label", own, LABEL.fullmatch(body)),
            ("result", own + 1, RESULT.fullmatch(body)),
        ):
            if not match or (rule != "marker" and NO_VALUE.match(match["rest"] or "")):
                continue
            if values := _values(match["rest"] or "", lines[number + 1 :]):
                start = place + len(line) - len(match["rest"] or "")
                yield Cue(rule, values, start, number >= late, rank)
                break
        else:
            if line.startswith("#### ") and (rest := line[5:].strip()) and not HEADING.match(rest):
                yield Cue("hashes", (rest,), place)
        place += len(line) + 1


def _others(marker: str | None) -> int:
    """The rank of the words that everybody uses: below a marker of another word."""
    return int(marker is not None and "answer" not in marker.casefold())


def _keys(text: str) -> Iterator[Cue]:
    whole = whole_object(text)
    if whole is not None:
        for key in ("answer", "final_answer"):
            if (value := whole.get(key)) is not None:
                yield Cue("key", (value if isinstance(value, str) else json.dumps(value, sort_keys=True),), 0)
        return
    for match in KEY.finditer(text):
        value = match[1].strip()
        yield Cue("key", (value[1:-1] if value.startswith('"') else value,), match.start())


def _phrases(text: str, marker: str | None) -> Iterator[Cue]:
    for match in PHRASE.finditer(text):
        before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        if not before.strip(DECORATION) and match[0].casefold().startswith("answer"):
            continue  # a label
        line, *below = text[match.end() :].split("\n", 8)
        if not DOUBT.search(text[max(0, match.start() - 40) : match.start()]) and not NO_VALUE.match(line):
            open_ended = match[0].rstrip().endswith(":") or not line.strip(EDGE + ":")
            if values := _values(SENTENCE_END.split(line)[0], below if open_ended else []):
                yield Cue(
                    "phrase", values, match.start(), True, _others(marker) + ("answer" not in match[0].casefold())
                )


def _values(rest: str, below: list[str]) -> tuple[str, ...]:
    """The rest of the cue's line, or the next four that are not openers alone."""
    value = without_cue(rest.lstrip(EDGE + ":").rstrip(EDGE))
    if not OPENERS.fullmatch(value):
        return (value,)
    filled = [line.strip(EDGE + ">") for line in below[:8] if line.strip()]
    return tuple(without_cue(line) for line in filled[:4] if not OPENERS.fullmatch(line))


_REPEATS, _LATE = 32, 4
