"""Cuts a text into passages: at headings and paragraphs, and long paragraphs at sentences, with a small overlap.

A passage has at most LONGEST characters. Paragraphs shorter than SHORT are joined with the next one under the same
heading. Of a long paragraph, a piece begins with the last sentences of the piece before, up to OVERLAP characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from reason_engine.types import Passage

LONGEST, OVERLAP, SHORT = 600, 100, 80


def plain(text: str, name: str) -> Iterator[Passage]:
    """Passages of a text without markup; the source is `name:line`."""
    yield from _passages([("", line, block) for line, block in _paragraphs(text.splitlines(), 1)], name)


def markdown(text: str, name: str) -> Iterator[Passage]:
    """The same, each with the heading it stands under. A `#` inside a fence is no heading."""
    blocks: list[tuple[str, int, str]] = []
    heading, fence, start, rows = "", "", 1, list[str]()

    def close() -> None:
        blocks.extend((heading, line, block) for line, block in _paragraphs(rows, start))

    for number, row in enumerate(text.splitlines(), 1):
        if mark := _FENCE.match(row):
            fence = "" if fence and mark[1].startswith(fence) else fence or mark[1]
        if not fence and (found := _HEADING.match(row)):
            close()
            heading, start, rows = found[1].strip(), number + 1, []
        else:
            rows.append(row)
    close()
    yield from _passages(blocks, name)


def pieces(text: str) -> list[str]:
    """A text of any length as pieces of at most LONGEST characters."""
    if len(text) <= LONGEST:
        return [text]
    found: list[str] = []
    held: list[str] = []
    for part in _parts(text):
        if held and len(" ".join((*held, part))) > LONGEST:
            found.append(" ".join(held))
            while held and (len(" ".join(held)) > OVERLAP or len(" ".join((*held, part))) > LONGEST):
                held = held[1:]
        held.append(part)
    return [*found, " ".join(held)]


def _passages(blocks: list[tuple[str, int, str]], name: str) -> Iterator[Passage]:
    joined: list[tuple[str, int, str]] = []
    for heading, line, block in blocks:
        if joined and joined[-1][0] == heading and len(joined[-1][2]) < SHORT:
            joined[-1] = (heading, joined[-1][1], f"{joined[-1][2]} {block}")
        else:
            joined.append((heading, line, block))
    for heading, line, block in joined:
        for piece in pieces(block):
            head = "" if not heading or heading.casefold() in piece.casefold() else f"{heading[:OVERLAP]}: "
            yield Passage(head + piece, f"{name}:{line}")


def _paragraphs(rows: list[str], first: int) -> Iterator[tuple[int, str]]:
    """(line, text) of what stands between blank lines, its white space collapsed."""
    held: list[str] = []
    for number, row in enumerate([*rows, ""], first):
        if words := " ".join(row.split()):
            held.append(words)
        elif held:
            yield number - len(held), " ".join(held)
            held = []


def _parts(text: str) -> Iterator[str]:
    """Sentences; where one is too long, groups of its words; where a word is, its letters."""
    for sentence in _SENTENCE.split(text):
        held = ""
        for word in sentence.split():
            for at in range(0, len(word), LONGEST):
                part = word[at : at + LONGEST]
                if held and len(held) + 1 + len(part) > LONGEST:
                    yield held
                    held = ""
                held = f"{held} {part}" if held else part
        if held:
            yield held


_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+")
_HEADING = re.compile(r" {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
