"""What stands between one run and its client: lets through what no rule catches, and ends the run where one does.

Everything that a client could read is checked: content, reasoning, tool calls, votes and events. Of a stopped answer it
keeps what was let go before; the run is aborted and its trace is empty.

Holds a growing text back until no rule can still catch it.

With reach L, the most characters of a match, all but the last L are let go: whatever will be found later begins
after them. A match that ends where the text ends so far is not certain yet (`foo` may become `food`) and holds back
everything from its beginning on. At the end the whole text is searched once more, for matches beyond their reach.
Where a rule's reach is not known, nothing is let go before the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from reason_engine.contracts import Engine
from reason_engine.runtime.events import Delta, Event, to_json
from reason_engine.runtime.outcome import Outcome
from reason_engine.runtime.stream_text import Field, Piece
from reason_engine.runtime.trace import Trace
from reason_engine.serving.guard.rules import Matcher, broken, first_broken, plain, strings
from reason_engine.types import Answer

Told = Callable[[str, str], None]
"""Hears of every stop: the rule's name, and `requests` or `answers`."""


class Screen:
    """One choice of one answer. `say` and `publish` take what its run says; `close` what it came to."""

    def __init__(
        self,
        matchers: Sequence[Matcher],
        classify: Callable[[str], Any] | None,
        say: Callable[[Piece], None] | None,
        publish: Callable[[Event], None] | None,
        told: Told,
        message: str,
    ) -> None:
        self._matchers, self._classify = matchers, classify
        self._say_to, self._publish_to = say, publish
        self._told, self._message = told, message
        self.active = bool(matchers or classify)
        self._whole = classify is not None or any(matcher.reach is None for matcher in matchers)
        self._fields: dict[Field, Tail] = {}
        self._nodes: dict[int, Tail] = {}
        self._waiting: list[Event] = []
        self._shown: dict[Field, list[str]] = {"reasoning": [], "content": []}
        self._all: list[str] = []
        self.hit: str | None = None
        """The rule that stopped it."""

    def halted(self) -> bool:
        """Whether the run is to end."""
        return self.hit is not None

    def shown(self, field: Field) -> str:
        """What was let go of a field."""
        return "".join(self._shown[field])

    def say(self, piece: Piece) -> None:
        """A piece of the narration."""
        if not self.active:
            self._show(piece)
        elif not self.hit:
            if piece.field == "content" and not self._whole:
                self._finish("reasoning")  # which comes first
            self._all.append(piece.text)
            tail = self._fields.setdefault(piece.field, Tail(self._matchers, whole=self._whole))
            text = tail.feed(piece.text)
            self._stop(tail.caught)
            self._show(Piece(piece.field, text))

    def publish(self, event: Event) -> None:
        """An event of the run, where the client asked for them. Prompts hold what the client or the operator wrote."""
        if not self._publish_to or self.hit:
            return
        if not self.active:
            self._publish_to(event)
        elif self._whole:
            self._waiting.append(event)
        elif event.kind == "delta":
            tail = self._nodes.setdefault(event.node, Tail(self._matchers))
            text = tail.feed(event.text)
            self._stop(tail.caught)
            self._happened(replace(event, text=text) if text else None)
        elif event.kind == "opened":
            self._happened(event)
        else:
            self._stop(broken(self._matchers, _texts(event)))
            if event.kind == "sampled" and (tail := self._nodes.pop(event.node, None)):
                self._stop(tail.settle())
                rest = tail.rest()
                self._happened(Delta(event.node, rest, event.at) if rest else None)
            self._happened(event)

    async def end(self, more: Sequence[str] = ()) -> str | None:
        """Check all of it, with texts that were not said: let the rest go, or name the rule that stopped it."""
        if self.active and not self.hit:
            for tail in self._fields.values():
                self._stop(tail.settle())
            texts = [*more, *(text for event in self._waiting for text in _texts(event))]
            self._stop(self.hit or await first_broken(self._matchers, texts))
            if self._classify and not self.hit:
                self._stop(await self._classify("".join((*self._all, *("\n" + text for text in more)))))
        if self.hit:
            if self._message and not self.shown("content"):
                self._hand_out(Piece("content", self._message))
            return self.hit
        for event in self._waiting:
            self._happened(event)
        self._finish("reasoning")
        self._finish("content")
        return None

    async def close(self, outcome: Outcome, engine: Engine) -> Outcome:
        """The outcome as the client may have it."""
        answer = outcome.answer
        calls = [text for call in outcome.tool_calls for text in (call.name, call.arguments)]
        values = [text for text in (answer.value, *(vote.answer for vote in answer.votes)) if text]
        cut = self.hit is not None
        if not self.active or not (rule := await self.end([*calls, *values])):
            return outcome
        content = self.shown("content")
        own = content and content != self._message  # of the model's making
        return replace(
            stopped(outcome, rule),
            content=content,
            reasoning=self.shown("reasoning") or None,
            content_tokens=min(outcome.usage.completion, len(engine.tokenize(content)) if own else 0),
            stopped="cancelled" if cut else outcome.stopped,
        )

    def _stop(self, rule: str | None) -> None:
        if rule and not self.hit:
            self.hit = rule
            self._waiting.clear()
            self._told(rule, "answers")

    def _finish(self, field: Field) -> None:
        """Nothing more comes of this field: what was held back of it goes."""
        if tail := self._fields.pop(field, None):
            self._stop(tail.settle())
            self._show(Piece(field, tail.rest()))

    def _show(self, piece: Piece) -> None:
        if piece.text and not self.hit:
            self._hand_out(piece)

    def _hand_out(self, piece: Piece) -> None:
        if self.active:
            self._shown[piece.field].append(piece.text)
        if self._say_to:
            self._say_to(piece)

    def _happened(self, event: Event | None) -> None:
        if event and not self.hit and self._publish_to:
            self._publish_to(event)


def stopped(outcome: Outcome, rule: str) -> Outcome:
    """The outcome of a run that a rule stopped: what it cost, and nothing of what it said."""
    kept = {key: outcome.trace.meta[key] for key in ("id", "model", "strategy") if key in outcome.trace.meta}
    return replace(
        outcome,
        content="",
        reasoning=None,
        tool_calls=(),
        finish_reason="content_filter",
        answer=Answer(),
        content_tokens=0,
        trace=Trace((), {**kept, "filtered": rule}),
        logprobs=(),
        sources=None,
        filtered=rule,
    )


def _texts(event: Event) -> list[str]:
    """What the model made of an event: all its texts but the prompt, and those of its notes."""
    return list(strings([value for key, value in to_json(event).items() if key not in _OURS]))


_OURS = ("kind", "prompt", "role", "stage", "finish_reason", "by")


class Tail:
    """One text. `caught` names the rule that stopped it; from then on nothing is let go."""

    def __init__(self, matchers: Sequence[Matcher], *, whole: bool = False) -> None:
        self._matchers = matchers
        reaches = [matcher.reach for matcher in matchers]
        self._reach = None if whole or None in reaches else max((r for r in reaches if r), default=0)
        self._text = ""  # all of it, as rules read it
        self._held = ""  # what was not let go, as it came
        self._gone = 0  # characters of `_text` that were let go
        self.caught: str | None = None

    def feed(self, text: str) -> str:
        """What may be shown after this text."""
        self._held += text
        searched = len(self._text)
        self._text += plain(text)
        if self.caught or self._reach is None:
            return ""
        safe = len(self._text) - self._reach if self._matchers else len(self._text)
        start = max(0, searched - self._reach - 1)
        for matcher in self._matchers:
            if found := matcher.find(self._text, start):
                if found[1] < len(self._text):
                    self.caught = matcher.name
                    return ""
                safe = min(safe, found[0])
        return self._let_go(safe)

    def settle(self) -> str | None:
        """Search the whole text, now that it has ended: the rule that caught it, else None."""
        for matcher in self._matchers:
            if not self.caught and matcher.find(self._text):
                self.caught = matcher.name
        return self.caught

    def rest(self) -> str:
        """What was held back; after `settle`, and only where nothing was caught."""
        held, self._held = self._held, ""
        return held

    def _let_go(self, safe: int) -> str:
        """The longest beginning of what is held whose plain form ends at `safe` or before."""
        count = 0
        for sign in self._held:
            width = len(plain(sign))
            if self._gone + width > safe:
                break
            self._gone += width
            count += 1
        shown, self._held = self._held[:count], self._held[count:]
        return shown
