"""Applies the operator's rules: a request that one stops never reaches the engine, an answer that one stops ends there.

Passages that may not be in an answer are not retrieved either.

Verdicts of models on whole texts, for the rules of kind `classifier`.

A text longer than the model's context is read in slices, and one slice that is over the threshold decides. A classifier
that fails or does not answer in time is an error: nothing unchecked is let through.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reason_engine.contracts import Capabilities, Engine, Retriever
from reason_engine.errors import EngineError, ReasonError, SetupError
from reason_engine.knowledge.quoting import neutral
from reason_engine.runtime.events import Event
from reason_engine.runtime.outcome import Outcome
from reason_engine.runtime.stream_text import Piece
from reason_engine.runtime.trace import Trace
from reason_engine.serving.guard.access import digest_of
from reason_engine.serving.guard.output_filter import Screen, Told, stopped
from reason_engine.serving.guard.rules import (
    ClassifierRule,
    Compiled,
    Matcher,
    Rules,
    broken,
    first_broken,
    strings,
)
from reason_engine.types import Answer, ChoiceRequest, Message, Passage, Problem, ScoreRequest, Usage

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


SECONDS = 30.0
MARGIN = 16
"""Tokens that a slice may grow by when it is read anew."""


def check_possible(rule: ClassifierRule, caps: Capabilities, where: str) -> None:
    """Raises SetupError where the engine cannot do what the rule asks."""
    if rule.by == "model" and not caps.choose:
        raise SetupError(
            f"{where}.by: this engine cannot tell probabilities of given words; use head or endpoint"
        )
    if rule.by == "head" and not caps.score:
        raise SetupError(f"{where}.by: this engine serves no model that scores; use model or endpoint")
    if rule.key_env and not os.environ.get(rule.key_env):
        raise SetupError(f"{where}.key_env: the environment has no {rule.key_env}")


async def caught(rule: ClassifierRule, text: str, engine: Engine) -> bool:
    """Whether the rule stops this text. Raises EngineError where there is no verdict."""
    if not text.strip():
        return False
    try:
        async with asyncio.timeout(SECONDS):
            if rule.by == "endpoint":
                return await _endpoint(rule, text) >= rule.threshold
            ask = _model if rule.by == "model" else _head
            for part in _slices(rule, neutral(text, engine.info.specials), engine):
                if await ask(rule, part, engine) >= rule.threshold:
                    return True
            return False
    except TimeoutError:
        raise EngineError(f"rule {rule.name!r}: no verdict in {SECONDS:g} s") from None
    except EngineError:
        raise
    except ReasonError as error:
        raise EngineError(f"rule {rule.name!r}: {error}") from None


async def _model(rule: ClassifierRule, text: str, engine: Engine) -> float:
    prompt = engine.render_chat([Message("user", _worded(rule, text))], think=False)
    choice = await engine.choose(ChoiceRequest(_id(), prompt, rule.options))
    return choice.probabilities[0]


async def _head(rule: ClassifierRule, text: str, engine: Engine) -> float:
    scores = await engine.score(ScoreRequest(_id(), (_worded(rule, text),), "reward", rule.model))
    return scores.values[0][0]


async def _endpoint(rule: ClassifierRule, text: str) -> float:
    from openai import APIError, AsyncOpenAI, omit

    key = os.environ.get(rule.key_env or "") or "none"
    async with AsyncOpenAI(base_url=rule.url, api_key=key, max_retries=1) as client:
        try:
            [result] = (await client.moderations.create(input=text, model=rule.model or omit)).results
        except (APIError, ValueError) as error:
            raise EngineError(f"rule {rule.name!r}: {error}") from None
    scores = [score for score in result.category_scores.model_dump().values() if score is not None]
    return max(scores, default=float(result.flagged))


def _slices(rule: ClassifierRule, text: str, engine: Engine) -> Iterator[str]:
    used = len(engine.tokenize(engine.render_chat([Message("user", _worded(rule, ""))])))
    room = max(MARGIN, engine.info.context - used - 2 * MARGIN)
    ids = engine.tokenize(text)
    if len(ids) <= room:
        yield text
        return
    for start in range(0, len(ids), room):
        yield engine.detokenize(ids[start : start + room])


def _worded(rule: ClassifierRule, text: str) -> str:
    return (rule.prompt or "{text}").replace("{text}", text)


def _id() -> str:
    return f"guard-{uuid.uuid4().hex}"
