"""Applies the operator's rules: a request that one stops never reaches the engine, an answer that one stops ends there.

Everything that a client could read is checked: content, reasoning, tool calls, votes, events, and the passages that
may be retrieved. Of a stopped answer it keeps what was let go before; its run is aborted and its trace is empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from reason_engine.contracts import Engine, Retriever
from reason_engine.runtime.events import Delta, Event, to_json
from reason_engine.runtime.outcome import Outcome
from reason_engine.runtime.split import Field, Piece
from reason_engine.runtime.trace import Trace
from reason_engine.serving.auth import digest_of
from reason_engine.serving.classify import caught, check_possible
from reason_engine.serving.rules import ClassifierRule, Compiled, Matcher, Rules, plain
from reason_engine.serving.screen import Tail
from reason_engine.types import Answer, Passage, Problem, Usage

NO_RULES = Compiled(Rules(), {})
Told = Callable[[str, str], None]
"""Hears of every stop: the rule's name, and `requests` or `answers`."""


class ContentGuard:
    """The rules of one server. Raises SetupError where the engine cannot do what a classifier needs."""

    def __init__(self, compiled: Compiled, engine: Engine, told: Told) -> None:
        self._rules, self._matchers, self._engine, self._told = (
            compiled.rules,
            compiled.matchers,
            engine,
            told,
        )
        self.message = compiled.rules.message
        for number, rule in enumerate(self._rules.rules):
            if isinstance(rule, ClassifierRule):
                check_possible(rule, engine.caps, f"--guard: rules.{number}")

    def caller(self, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
        """The label of the key that a request came with."""
        given = digest_of(headers).hex()
        return next((label for label, digest in self._rules.keys.items() if digest == given), None)

    async def stops(self, caller: str | None, texts: Sequence[str]) -> str | None:
        """The rule that stops a request which holds these texts."""
        matchers, classifiers = self._of("requests", caller)
        found = await _first(matchers, texts)
        found = found or await self._classified(classifiers, "\n\n".join(texts))
        if found:
            self._told(found, "requests")
        return found

    def screen(
        self, caller: str | None, say: Callable[[Piece], None] | None, publish: Callable[[Event], None] | None
    ) -> Screen:
        """What stands between one run and its client."""
        matchers, classifiers = self._of("answers", caller)

        async def classify(text: str) -> str | None:
            return await self._classified(classifiers, text)

        return Screen(matchers, classify if classifiers else None, say, publish, self._told, self.message)

    def sifted(self, caller: str | None, knowledge: Retriever | None) -> Retriever | None:
        """The documents without the passages that may not be in an answer."""
        matchers, _ = self._of("answers", caller)
        return Sifted(knowledge, matchers) if knowledge and matchers else knowledge

    def _of(self, where: str, caller: str | None) -> tuple[list[Matcher], list[ClassifierRule]]:
        rules = [rule for rule in self._rules.rules if rule.holds(where, caller)]
        matchers = [self._matchers[rule.name] for rule in rules if rule.name in self._matchers]
        return matchers, [rule for rule in rules if isinstance(rule, ClassifierRule)]

    async def _classified(self, rules: Sequence[ClassifierRule], text: str) -> str | None:
        for rule in rules:
            if await caught(rule, text, self._engine):
                return rule.name
        return None


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
            self._stop(_found(self._matchers, _texts(event)))
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
            self._stop(self.hit or await _first(self._matchers, texts))
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
        return replace(
            stopped(outcome, rule),
            content=content,
            reasoning=self.shown("reasoning") or None,
            content_tokens=min(outcome.usage.completion, len(engine.tokenize(content)) if content else 0),
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


class Sifted:
    """A retriever that finds only what may be answered."""

    def __init__(self, inner: Retriever, matchers: Sequence[Matcher]) -> None:
        self._inner, self._matchers = inner, matchers

    async def retrieve(self, query: str, k: int) -> list[Passage]:
        found = await self._inner.retrieve(query, k)
        return [passage for passage in found if not _found(self._matchers, [passage.text, passage.source])]


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


def unasked(run_id: str, rule: str, message: str) -> Outcome:
    """The outcome of a request that a rule stopped before anything ran."""
    empty = Outcome(
        run_id, "", None, (), "content_filter", Answer(), "cancelled", Usage(), {}, 0, 0, 0, 0.0,
        Trace((), {"id": run_id}),
    )  # fmt: skip
    return replace(stopped(empty, rule), content=message)


def asked_texts(problem: Problem, rest: Mapping[str, Any]) -> list[str]:
    """Every text of a request: its turns, and whatever else a prompt could be made of."""
    texts: list[str] = []
    for turn in problem.turns():
        texts += [turn.content, turn.reasoning or "", turn.name or ""]
        texts += [text for call in turn.tool_calls for text in (call.name, call.arguments)]
    named = {key: value for key, value in rest.items() if key in _NAMED}
    others = {
        key: value for key, value in rest.items() if key not in (*_NAMED, "messages", "model", "prompt")
    }
    return [text for text in (*texts, *_strings(list(others.values())), *_strings(named, keys=True)) if text]


async def _first(matchers: Sequence[Matcher], texts: Sequence[str]) -> str | None:
    """The first rule that one of these texts, of any length, breaks; the loop goes on meanwhile."""
    return await asyncio.to_thread(_found, matchers, texts) if matchers and texts else None


def _found(matchers: Sequence[Matcher], texts: Sequence[str]) -> str | None:
    for text in map(plain, texts):
        for matcher in matchers:
            if matcher.find(text):
                return matcher.name
    return None


def _texts(event: Event) -> list[str]:
    """What the model made of an event: all its texts but the prompt, and those of its notes."""
    return list(_strings([value for key, value in to_json(event).items() if key not in _OURS]))


def _strings(value: object, *, keys: bool = False) -> Iterator[str]:
    """Every text inside a JSON value; the names of its fields too with `keys`."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in cast("Mapping[Any, Any]", value).items():
            if keys:
                yield str(key)
            yield from _strings(inner, keys=keys)
    elif isinstance(value, list | tuple):
        for inner in cast("Sequence[Any]", value):
            yield from _strings(inner, keys=keys)


_OURS = ("kind", "prompt", "role", "stage", "finish_reason", "by")
_NAMED = ("tools", "response_format")
"""Fields whose names of properties reach a prompt."""
