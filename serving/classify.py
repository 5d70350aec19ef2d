"""Verdicts of models on whole texts, for the rules of kind `classifier`.

A text longer than the model's context is read in slices, and one slice that is over the threshold decides. A classifier
that fails or does not answer in time is an error: nothing unchecked is let through.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator

from reason_engine.contracts import Capabilities, Engine
from reason_engine.errors import EngineError, ReasonError, SetupError
from reason_engine.knowledge.quoting import neutral
from reason_engine.serving.rules import ClassifierRule
from reason_engine.types import ChoiceRequest, Message, ScoreRequest

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
