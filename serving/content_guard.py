"""Applies the operator's rules: a request that one stops never reaches the engine, an answer that one stops ends there.

Passages that may not be in an answer are not retrieved either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reason_engine.contracts import Engine, Retriever
from reason_engine.runtime.events import Event
from reason_engine.runtime.outcome import Outcome
from reason_engine.runtime.split import Piece
from reason_engine.runtime.trace import Trace
from reason_engine.serving.auth import digest_of
from reason_engine.serving.classify import caught, check_possible
from reason_engine.serving.matcher import Matcher, broken, first_broken, strings
from reason_engine.serving.rules import ClassifierRule, Compiled, Rules
from reason_engine.serving.screen import Screen, Told, stopped
from reason_engine.types import Answer, Passage, Problem, Usage

NO_RULES = Compiled(Rules(), {})


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
        found = await first_broken(matchers, texts)
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


class Sifted:
    """A retriever that finds only what may be answered."""

    def __init__(self, inner: Retriever, matchers: Sequence[Matcher]) -> None:
        self._inner, self._matchers = inner, matchers

    async def retrieve(self, query: str, k: int) -> list[Passage]:
        found = await self._inner.retrieve(query, k)
        return [passage for passage in found if not broken(self._matchers, [passage.text, passage.source])]


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
    return [text for text in (*texts, *strings(list(others.values())), *strings(named, keys=True)) if text]


_NAMED = ("tools", "response_format")
"""Fields whose names of properties reach a prompt."""
