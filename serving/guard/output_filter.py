"""Stands between one run and its client: lets through what no rule catches, and ends the run where one does.

Everything that a client could read is checked: content, reasoning, tool calls, votes and events. Of a stopped answer it
keeps what was released before; the run is aborted and its trace is empty.

A growing text is held back until no rule can still catch it. With reach L, the most characters of a match, all but the
last L are released: whatever will be found later begins after them. A match that ends where the text ends so far is not
certain yet (`foo` may become `food`) and holds back everything from its beginning on. At the end the whole text is
searched once more, for matches beyond their reach. Where a rule's reach is not known, nothing is released before the
end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import ClassVar

from reason_engine.contracts import Engine
from reason_engine.runtime.solve import Outcome
from reason_engine.runtime.stream_text import Field, Piece
from reason_engine.runtime.trace import Delta, Event, Trace, to_json
from reason_engine.serving.guard.rules import Matcher, comparable, find_violation, first_violation, strings
from reason_engine.types import Answer

OnStop = Callable[[str, str], None]
"""Is called at every stop with the rule's name and `requests` or `answers`."""


class OutputFilter:
    """Filters one choice of one answer. `text` and `events` take what is released; `close` makes its outcome."""

    active: ClassVar[bool] = True

    def __init__(
        self,
        matchers: Sequence[Matcher],
        classify: Callable[[str], Awaitable[str | None]] | None,
        text: Callable[[Piece], None] | None,
        events: Callable[[Event], None] | None,
        on_stop: OnStop,
        message: str,
    ) -> None:
        self._matchers, self._classify = matchers, classify
        self._to_text, self._to_events = text, events
        self._on_stop, self._message = on_stop, message
        self._whole = classify is not None or any(matcher.reach is None for matcher in matchers)
        self._fields: dict[Field, Holdback] = {}
        self._nodes: dict[int, Holdback] = {}
        self._waiting: list[Event] = []
        self._released: dict[Field, list[str]] = {"reasoning": [], "content": []}
        self._all: list[str] = []
        self.rule: str | None = None
        """The rule that stopped it."""

    def halted(self) -> bool:
        """Whether the run is to end."""
        return self.rule is not None

    def released(self, field: Field) -> str:
        """What was released of a field."""
        return "".join(self._released[field])

    def add_text(self, piece: Piece) -> None:
        """Take a piece of the content or the reasoning."""
        if not self.rule:
            if piece.field == "content" and not self._whole:
                self._finish("reasoning")  # which comes first
            self._all.append(piece.text)
            held = self._fields.setdefault(piece.field, Holdback(self._matchers, whole=self._whole))
            text = held.feed(piece.text)
            self._stop(held.rule)
            self._release(Piece(piece.field, text))

    def add_event(self, event: Event) -> None:
        """Take an event, where the client asked for them. Prompts hold what the client or the operator wrote."""
        if not self._to_events or self.rule:
            return
        if self._whole:
            self._waiting.append(event)
        elif event.kind == "delta":
            held = self._nodes.setdefault(event.node, Holdback(self._matchers))
            text = held.feed(event.text)
            self._stop(held.rule)
            self._release_event(replace(event, text=text) if text else None)
        elif event.kind == "opened":
            self._release_event(event)
        else:
            self._stop(first_violation(self._matchers, _texts(event)))
            if event.kind == "sampled" and (held := self._nodes.pop(event.node, None)):
                self._stop(held.finish())
                rest = held.remainder()
                self._release_event(Delta(event.node, rest, event.at) if rest else None)
            self._release_event(event)

    async def finish(self, more: Sequence[str] = ()) -> str | None:
        """Check all of it, with texts that were not streamed: release the rest, or name the rule that stopped it."""
        if not self.rule:
            for held in self._fields.values():
                self._stop(held.finish())
            texts = [*more, *(text for event in self._waiting for text in _texts(event))]
            self._stop(self.rule or await find_violation(self._matchers, texts))
            if self._classify and not self.rule:
                self._stop(await self._classify("".join((*self._all, *("\n" + text for text in more)))))
        if self.rule:
            if self._message and not self.released("content"):
                self._hand_on(Piece("content", self._message))
            return self.rule
        for event in self._waiting:
            self._release_event(event)
        self._finish("reasoning")
        self._finish("content")
        return None

    async def close(self, outcome: Outcome, engine: Engine) -> Outcome:
        """The outcome as the client may have it."""
        answer = outcome.answer
        calls = [text for call in outcome.tool_calls for text in (call.name, call.arguments)]
        values = [text for text in (answer.value, *(vote.answer for vote in answer.votes)) if text]
        cut = self.rule is not None
        if not (rule := await self.finish([*calls, *values])):
            return outcome
        content = self.released("content")
        own = content and content != self._message  # of the model's making
        return replace(
            withheld(outcome, rule),
            content=content,
            reasoning=self.released("reasoning") or None,
            content_tokens=min(outcome.usage.completion, len(engine.tokenize(content)) if own else 0),
            stopped="cancelled" if cut else outcome.stopped,
        )

    def _stop(self, rule: str | None) -> None:
        if rule and not self.rule:
            self.rule = rule
            self._waiting.clear()
            self._on_stop(rule, "answers")

    def _finish(self, field: Field) -> None:
        """Nothing more comes of this field: what was held back of it goes."""
        if held := self._fields.pop(field, None):
            self._stop(held.finish())
            self._release(Piece(field, held.remainder()))

    def _release(self, piece: Piece) -> None:
        if piece.text and not self.rule:
            self._hand_on(piece)

    def _hand_on(self, piece: Piece) -> None:
        self._released[piece.field].append(piece.text)
        if self._to_text:
            self._to_text(piece)

    def _release_event(self, event: Event | None) -> None:
        if event and not self.rule and self._to_events:
            self._to_events(event)


def withheld(outcome: Outcome, rule: str) -> Outcome:
    """The outcome of a run that a rule stopped: what it cost, and nothing of its text."""
    kept = {key: outcome.trace.meta[key] for key in ("id", "model", "strategy") if key in outcome.trace.meta}
    return replace(
        outcome, content="", reasoning=None, tool_calls=(), finish_reason="content_filter", answer=Answer(),
        content_tokens=0, trace=Trace((), {**kept, "filtered": rule}), logprobs=(), sources=None, filtered=rule,
    )  # fmt: skip


def _texts(event: Event) -> list[str]:
    """What the model made of an event: all its texts but the prompt, and those of its notes."""
    return list(strings([value for key, value in to_json(event).items() if key not in _NOT_THE_MODELS]))


_NOT_THE_MODELS = ("kind", "prompt", "role", "stage", "finish_reason", "by")


class Holdback:
    """Holds back the end of one growing text. `rule` names what stopped it; from then on nothing is released."""

    def __init__(self, matchers: Sequence[Matcher], *, whole: bool = False) -> None:
        self._matchers = matchers
        reaches = [matcher.reach for matcher in matchers]
        self._reach = None if whole or None in reaches else max((r for r in reaches if r), default=0)
        self._text = ""  # all of it, as rules read it
        self._held = ""  # what was not released, as it came
        self._released = 0  # characters of `_text` that were released
        self.rule: str | None = None

    def feed(self, text: str) -> str:
        """What may be shown after this text."""
        self._held += text
        searched = len(self._text)
        self._text += comparable(text)
        if self.rule or self._reach is None:
            return ""
        safe = len(self._text) - self._reach if self._matchers else len(self._text)
        start = max(0, searched - self._reach - 1)
        for matcher in self._matchers:
            if found := matcher.find(self._text, start):
                if found[1] < len(self._text):
                    self.rule = matcher.name
                    return ""
                safe = min(safe, found[0])
        return self._release(safe)

    def finish(self) -> str | None:
        """Search the whole text, now that it has ended: the rule that stops it, else None."""
        for matcher in self._matchers:
            if not self.rule and matcher.find(self._text):
                self.rule = matcher.name
        return self.rule

    def remainder(self) -> str:
        """What was held back; after `finish`, and only where no rule stopped it."""
        held, self._held = self._held, ""
        return held

    def _release(self, safe: int) -> str:
        """The longest beginning of what is held whose comparable form ends at `safe` or before."""
        count = 0
        for sign in self._held:
            width = len(comparable(sign))
            if self._released + width > safe:
                break
            self._released += width
            count += 1
        shown, self._held = self._held[:count], self._held[count:]
        return shown
