"""Applies the operator's rules: a request that one stops never reaches the engine, an answer that one stops ends there.

Passages that may not be in an answer are not retrieved either. Rules of kind `classifier` ask a model about whole
texts: one longer than the model's context is read in slices, and one slice that is over the threshold decides. A
classifier that fails or does not answer in time is an error: nothing unchecked is let through.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reason_engine.contracts import Capabilities, Engine, Retriever
from reason_engine.errors import EngineError, ReasonError, SetupError
from reason_engine.knowledge.quoting import neutral
from reason_engine.runtime.stream_text import Piece
from reason_engine.runtime.trace import Event
from reason_engine.serving.guard.access import digest_of
from reason_engine.serving.guard.output_filter import OnStop, OutputFilter
from reason_engine.serving.guard.rules import (
    ClassifierRule,
    CompiledRules,
    Matcher,
    Rules,
    find_violation,
    first_violation,
    strings,
)
from reason_engine.types import ChoiceRequest, Message, Passage, Problem, ScoreRequest

NO_RULES = CompiledRules(Rules(), {})


class ContentGuard:
    """The rules of one server. Raises SetupError where the engine cannot do what a classifier needs."""

    def __init__(self, compiled: CompiledRules, engine: Engine, on_stop: OnStop) -> None:
        self._rules, self._matchers = compiled.rules, compiled.matchers
        self._engine, self._on_stop = engine, on_stop
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
        matchers, classifiers = self._rules_on("requests", caller)
        found = await find_violation(matchers, texts)
        found = found or await self._classify(classifiers, "\n\n".join(texts))
        if found:
            self._on_stop(found, "requests")
        return found

    def output_filter(
        self, caller: str | None, text: Callable[[Piece], None] | None, events: Callable[[Event], None] | None
    ) -> OutputFilter:
        """What stands between one run and its client."""
        matchers, classifiers = self._rules_on("answers", caller)

        async def classify(text: str) -> str | None:
            return await self._classify(classifiers, text)

        return OutputFilter(matchers, classify if classifiers else None, text, events, self._on_stop, self.message)

    def answerable(self, caller: str | None, knowledge: Retriever | None) -> Retriever | None:
        """The documents without the passages that may not be in an answer."""
        matchers, _ = self._rules_on("answers", caller)
        return FilteredRetriever(knowledge, matchers) if knowledge and matchers else knowledge

    def _rules_on(self, where: str, caller: str | None) -> tuple[list[Matcher], list[ClassifierRule]]:
        rules = [rule for rule in self._rules.rules if rule.applies(where, caller)]
        matchers = [self._matchers[rule.name] for rule in rules if rule.name in self._matchers]
        return matchers, [rule for rule in rules if isinstance(rule, ClassifierRule)]

    async def _classify(self, rules: Sequence[ClassifierRule], text: str) -> str | None:
        for rule in rules:
            if await classified(rule, text, self._engine):
                return rule.name
        return None


class FilteredRetriever:
    """A retriever that finds only what may be answered."""

    def __init__(self, inner: Retriever, matchers: Sequence[Matcher]) -> None:
        self._inner, self._matchers = inner, matchers

    async def retrieve(self, query: str, k: int) -> list[Passage]:
        found = await self._inner.retrieve(query, k)
        return [one for one in found if not first_violation(self._matchers, [one.text, one.source])]


def asked_texts(problem: Problem, rest: Mapping[str, Any]) -> list[str]:
    """Every text of a request: its turns, and whatever else a prompt could be made of."""
    texts: list[str] = []
    for turn in problem.turns():
        texts += [turn.content, turn.reasoning or "", turn.name or ""]
        texts += [text for call in turn.tool_calls for text in (call.name, call.arguments)]
    named = {key: value for key, value in rest.items() if key in _READ_WITH_NAMES}
    others = {
        key: value for key, value in rest.items() if key not in (*_READ_WITH_NAMES, "messages", "model", "prompt")
    }
    return [text for text in (*texts, *strings(list(others.values())), *strings(named, keys=True)) if text]


_READ_WITH_NAMES = ("tools", "response_format")
"""Fields whose names of properties reach a prompt."""


VERDICT_SECONDS = 30.0
MARGIN = 16
"""Tokens that a slice may grow by when it is read anew."""


def check_possible(rule: ClassifierRule, caps: Capabilities, where: str) -> None:
    """Raises SetupError where the engine cannot do what the rule asks."""
    if rule.by == "model" and not caps.choose:
        raise SetupError(f"{where}.by: this engine cannot tell probabilities of given words; use head or endpoint")
    if rule.by == "head" and not caps.score:
        raise SetupError(f"{where}.by: this engine serves no model that scores; use model or endpoint")
    if rule.key_env and not os.environ.get(rule.key_env):
        raise SetupError(f"{where}.key_env: the environment has no {rule.key_env}")


async def classified(rule: ClassifierRule, text: str, engine: Engine) -> bool:
    """Whether the rule stops this text. Raises EngineError where there is no verdict."""
    if not text.strip():
        return False
    try:
        async with asyncio.timeout(VERDICT_SECONDS):
            if rule.by == "endpoint":
                return await _endpoint(rule, text) >= rule.threshold
            ask = _model if rule.by == "model" else _head
            for part in _slices(rule, neutral(text, engine.info.specials), engine):
                if await ask(rule, part, engine) >= rule.threshold:
                    return True
            return False
    except TimeoutError:
        raise EngineError(f"rule {rule.name!r}: no verdict in {VERDICT_SECONDS:g} s") from None
    except EngineError:
        raise
    except ReasonError as error:
        raise EngineError(f"rule {rule.name!r}: {error}") from None


async def _model(rule: ClassifierRule, text: str, engine: Engine) -> float:
    prompt = engine.render_chat([Message("user", _format_prompt(rule, text))], think=False)
    choice = await engine.choose(ChoiceRequest(_request_id(), prompt, rule.options))
    return choice.probabilities[0]


async def _head(rule: ClassifierRule, text: str, engine: Engine) -> float:
    scores = await engine.score(ScoreRequest(_request_id(), (_format_prompt(rule, text),), "reward", rule.model))
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
    used = len(engine.tokenize(engine.render_chat([Message("user", _format_prompt(rule, ""))])))
    room = max(MARGIN, engine.info.context - used - 2 * MARGIN)
    ids = engine.tokenize(text)
    if len(ids) <= room:
        yield text
        return
    for start in range(0, len(ids), room):
        yield engine.detokenize(ids[start : start + room])


def _format_prompt(rule: ClassifierRule, text: str) -> str:
    return (rule.prompt or "{text}").replace("{text}", text)


def _request_id() -> str:
    return f"guard-{uuid.uuid4().hex}"
