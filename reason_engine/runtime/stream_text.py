"""What a client sees of a run: its events folded into pieces of `reasoning` and `content`.

One live path is shown token by token, split where its content begins. Several paths are shown as whole lines,
`[span] text`, never interleaved; the content follows the decision. The same stream makes the streamed deltas and the
fields of an unstreamed answer, so they are equal.

Content is what follows the end of thinking, in the model's own marks, else what starts at the answer marker (its line
included), else all of it; what stands before a tool call that came without a marker is reasoning. White space around
the border belongs to neither. Where a marker was waited for and never came, the whole text is the content and, since it
has been shown by then, the reasoning as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from reason_engine.runtime.trace import Event, Opened
from reason_engine.types import Path


class TextStream:
    """Folds the events of one run. `borders` tells, for a rendered prompt, where reasoning ends."""

    def __init__(self, borders: Callable[[str], Borders], say: Callable[[Piece], None]) -> None:
        self._borders, self._say_to = borders, say
        self._labels: dict[int, str] = {}
        self._lines: dict[int, str] = {}
        self._live: tuple[int, Splitter] | None = None
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self.stopped = False
        """Whether a stop string of the request ended the content."""

    @property
    def reasoning(self) -> str | None:
        """All reasoning said so far."""
        return "".join(self._reasoning) or None

    @property
    def content(self) -> str:
        """All content said so far."""
        return "".join(self._content)

    def feed(self, event: Event) -> None:
        """Say what this event makes certain."""
        match event.kind:
            case "opened":
                self._open(event)
            case "delta":
                if self._live and event.node == self._live[0]:
                    self._say(self._live[1].feed(event.text))
                else:
                    self._grow(event.node, event.text)
            case "sampled":
                if rest := self._lines.pop(event.node, "").strip():
                    self._line(event.node, rest)
            case "scored":
                self._line(event.node, f"{event.by} {event.value:.3g}")
            case "proposed":
                if not self._live and event.answer is not None:
                    self._say([Piece("reasoning", f"[best so far] {event.answer}\n")])
            case "closed":
                pass

    def finish(self, path: Path | None, *, called: bool = False) -> None:
        """Say the content: the winner's, without its tool calls if there were any (`called`); or nothing."""
        if self._live and path and path.node == self._live[0]:
            self._say(self._live[1].finish(called=called))
            self.stopped = self._live[1].stopped
        elif path:
            splitter = Splitter(self._borders(path.prompt))
            pieces = splitter.feed(path.text) + splitter.finish(called=called)
            self.stopped = splitter.stopped
            self._say([piece for piece in pieces if piece.field == "content"])

    def _open(self, event: Opened) -> None:
        parent = self._labels.get(event.parent, "") if event.parent is not None else ""
        self._labels[event.node] = f"{parent} {event.name}".strip() if event.parent is not None else ""
        if event.live:
            splitter = Splitter(self._borders(event.prompt))
            self._live = event.node, splitter
            self._say(splitter.feed(event.prefill))

    def _grow(self, node: int, text: str) -> None:
        *lines, rest = (self._lines.get(node, "") + text).split("\n")
        self._lines[node] = rest
        for line in lines:
            if line.strip():
                self._line(node, line.strip())

    def _line(self, node: int, text: str) -> None:
        if not (self._live and node == self._live[0]):
            self._say([Piece("reasoning", f"[{self._labels.get(node) or 'run'}] {text}\n")])

    def _say(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            (self._reasoning if piece.field == "reasoning" else self._content).append(piece.text)
            self._say_to(piece)


Field = Literal["reasoning", "content"]
State = Literal["start", "thought", "steps", "content", "call", "done"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that one field gains."""

    field: Field
    text: str


@dataclass(frozen=True, slots=True)
class Borders:
    """What separates reasoning from content. `thinking`: the text begins inside a thought that the prompt opened.
    `calls` opens a tool call: from there on nothing is shown before the end tells whether it is one."""

    think_start: str | None = None
    think_end: str | None = None
    marker: str | None = None
    thinking: bool = False
    stop: tuple[str, ...] = ()
    calls: str | None = None
    answer_starts: tuple[str, ...] = ()
    """Marks of which one may stand before the answer, and is not part of it."""


class Splitter:
    """Feed text as it comes; `finish` hands out what was held back. One splitter serves one text."""

    def __init__(self, borders: Borders) -> None:
        self._borders = borders
        self._held = ""
        self._whole: list[str] = []
        self._state: State = "thought" if borders.thinking else "start"
        self._said = False
        self._unmarked = False  # a tool call came where the marker was waited for
        self._fresh = False  # content has begun after reasoning, but nothing of it was seen yet
        self.stopped = False
        """Whether a stop string ended the content."""

    def feed(self, text: str) -> list[Piece]:
        """The pieces that are certain after this text."""
        self._whole.append(text)
        self._held += text
        out: list[Piece] = []
        while self._advance(out):
            pass
        return out

    def finish(self, *, called: bool = False) -> list[Piece]:
        """The rest, after the last text; without what was held as a tool call if it was one."""
        out: list[Piece] = []
        if self._state == "start":
            self._state = "steps" if self._borders.marker else "content"
            while self._advance(out):
                pass
        held, self._held = self._held, ""
        if self._state == "content" and self._fresh and self._begins_answer(held):
            held = ""  # cut inside the mark
        if self._state == "thought":
            self._emit(out, "reasoning", held.rstrip())
        elif self._state == "steps":
            self._emit(out, "reasoning", held)
            self._emit(out, "content", "".join(self._whole))
        elif self._state == "content" or (self._state == "call" and not called):
            self._emit(out, "content", "".join(self._whole) if self._unmarked else held)
        self._state = "done"
        return out

    def _advance(self, out: list[Piece]) -> bool:
        """One step of the machine; False when more text is needed."""
        borders = self._borders
        if self._state == "start":
            head, start = self._held.lstrip(), borders.think_start
            if start and head.startswith(start):
                self._held, self._state = head[len(start) :], "thought"
                return True
            if any(mark.startswith(head) for mark in (start, *borders.answer_starts) if mark):
                return False
            self._fresh = any(head.startswith(mark) for mark in borders.answer_starts)
            self._state = "steps" if borders.marker and not self._fresh else "content"
            return True
        if self._state == "thought":
            return self._until(out, rf"\s*{re.escape(borders.think_end or '')}\s*", borders.think_end or "")
        if self._state == "steps":
            # `^` may match only where the text really begins.
            begin = r"\s*\n" if self._said else r"(?:^|\s*\n)"
            pattern = rf"{begin}[ \t]*(?={re.escape(borders.marker or '')})"
            at = self._held.find(borders.calls) if borders.calls else -1
            if at >= 0 and not re.search(pattern, self._held[:at]):
                shown = self._held[:at].rstrip()
                self._emit(out, "reasoning", shown)
                self._held, self._state, self._unmarked = self._held[len(shown) :], "call", True
                return False
            return self._until(out, pattern, borders.marker or "")
        if self._state == "content":
            self._content(out)
        return False

    def _until(self, out: list[Piece], pattern: str, word: str) -> bool:
        if not self._said:
            self._held = self._held.lstrip()
        found = re.search(pattern, self._held)
        if found:
            self._emit(out, "reasoning", self._held[: found.start()])
            self._held, self._state = self._held[found.end() :], "content"
            self._fresh = True
            return True
        keep = _possible_start(self._held, word)
        if self._state == "steps" and self._borders.calls:
            keep = min(keep, _possible_start(self._held, self._borders.calls))
        self._emit(out, "reasoning", self._held[:keep])
        self._held = self._held[keep:]
        return False

    def _content(self, out: list[Piece]) -> None:
        if self._fresh:
            self._held = self._held.lstrip()
            marks = self._borders.answer_starts
            if self._begins_answer(self._held):
                return
            begun = next((mark for mark in marks if self._held.startswith(mark)), "")
            self._held = self._held.removeprefix(begun).lstrip() if begun else self._held
            self._fresh = not self._held
        calls = self._borders.calls
        if calls and calls in self._held:
            before, found, rest = self._held.partition(calls)
            shown = before.rstrip()
            self._emit(out, "content", shown)
            self._held, self._state = before[len(shown) :] + found + rest, "call"
            return
        for stop in sorted(self._borders.stop, key=lambda s: self._held.find(s) + 1 or len(self._held) + 2):
            at = self._held.find(stop)
            if at >= 0:
                self._emit(out, "content", self._held[:at])
                self._held, self._state, self.stopped = "", "done", True
                return
        keep = _possible_start(self._held, calls) if calls else len(self._held)
        keep = min([keep, *(_partial(self._held, stop) for stop in self._borders.stop)])
        self._emit(out, "content", self._held[:keep])
        self._held = self._held[keep:]

    def _begins_answer(self, text: str) -> bool:
        """Whether this is no more than the beginning of a mark that stands before an answer."""
        return any(mark.startswith(text) and mark != text for mark in self._borders.answer_starts)

    def _emit(self, out: list[Piece], field: Field, text: str) -> None:
        if text:
            self._said = True
            out.append(Piece(field, text))


def _possible_start(text: str, word: str) -> int:
    """Where the longest end begins that may still become white space followed by `word`."""
    return len(text[: _partial(text, word)].rstrip())


def _partial(text: str, word: str) -> int:
    """Where the longest end begins that may still become `word`."""
    sizes = range(min(len(word) - 1, len(text)), 0, -1)
    return len(text) - next((size for size in sizes if text.endswith(word[:size])), 0)
