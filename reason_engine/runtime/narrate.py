"""What a client sees of a run: its events folded into pieces of `reasoning` and `content`.

One live path is shown token by token, split where its content begins. Several paths are shown as whole lines,
`[span] text`, never interleaved; the content follows the decision. The same narrator makes the streamed deltas and the
fields of an unstreamed answer, so they are equal.
"""

from __future__ import annotations

from collections.abc import Callable

from reason_engine.runtime.events import Event, Opened
from reason_engine.runtime.split import Borders, Piece, Splitter
from reason_engine.types import Path


class Narrator:
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
