r"""Where a step of a solution ends: one rule for whoever draws steps, judges them or trains on them.

A profile that names the end of its steps means exactly that: every piece between two ends is a step. The general end
is a blank line, and there a piece is a step only if it stands by itself: one of fewer than `LEAST` characters belongs
to what follows it, and so does one that ends inside a code block or inside displayed mathematics.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BLANK_LINE = "\n\n"
LEAST = 20
"""Characters of the shortest piece that is a step."""


def step_pieces(text: str, end: str) -> list[str]:
    """The text cut at the ends of its steps; joined with `end` they are the text again. Pieces may be empty."""
    if end != BLANK_LINE:
        return text.split(end)
    pieces, held, seen = list[str](), list[str](), Seen()
    for piece in text.split(end):
        held.append(piece)
        seen = seen.after(piece)
        if seen.whole(LEAST):
            pieces.append(end.join(held))
            held, seen = [], Seen()
    return [*pieces, end.join(held)] if held or not pieces else pieces


def step_ends(text: str, end: str) -> tuple[int, ...]:
    """Where each step that is not empty ends, its mark not included."""
    found, at = list[int](), 0
    for piece in step_pieces(text, end):
        if piece.strip():
            found.append(at + len(piece))
        at += len(piece) + len(end)
    return tuple(found)


def is_step(piece: str, end: str, least: int = LEAST) -> bool:
    """Whether a piece of text that an end follows is a step by itself."""
    return bool(piece.strip()) if end != BLANK_LINE else Seen().after(piece).whole(least)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a piece holds so far: characters, marks of code blocks and of `$$`, whether display mode is open."""

    length: int = 0
    fences: int = 0
    dollars: int = 0
    display: bool = False

    def after(self, piece: str) -> Seen:
        """With this piece as well."""
        last = next((found[0] for found in reversed(list(_DISPLAY.finditer(piece)))), None)
        return Seen(
            self.length + len(piece.strip()),
            self.fences + len(_FENCE.findall(piece)),
            self.dollars + piece.count("$$"),
            self.display if last is None else last == "\\[",
        )

    def whole(self, least: int) -> bool:
        """Whether it is long enough and leaves nothing open."""
        return self.length >= least and not (self.fences % 2 or self.dollars % 2 or self.display)


_DISPLAY = re.compile(r"(?<!\\)\\[\[\]]")
_FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)
