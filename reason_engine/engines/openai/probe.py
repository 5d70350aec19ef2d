"""What an endpoint can do, found by asking it: a few requests of at most four tokens each.

`n` and seeds: two samples of one call, then the second one alone with the seed that it must have had. Log-probabilities
and token ids: whether they come. Prompts as ids: whether the endpoint counts as many as were sent. Structured output:
whether a greeting under a JSON schema begins with a brace. Begun answers: `wire/prefill.py`.

A question that the endpoint is too busy for, or does not answer in time, stays open and is asked again later; until
then the power is assumed as before (`Abilities`). A refusal is an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from reason_engine.engines.openai.abilities import Abilities, Question
from reason_engine.engines.openai.wire.prefill import PROBE_SECONDS, Prefill, find_prefill
from reason_engine.errors import EngineBusy, EngineDead, EngineError, RequestError
from reason_engine.types import Chunk

ODD = "Write one long line of random words and numbers."
GREETING = "Say hello."
SCHEMA = {"type": "object", "properties": {"hello": {"type": "integer"}}, "required": ["hello"]}
IDS = (100, 101, 102, 103)
TOKENS = 4
MOST_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Reply:
    """The samples of one call, in order."""

    chunks: tuple[Chunk, ...]

    def text(self, index: int = 0) -> str:
        return "".join(chunk.text for chunk in self.chunks if chunk.index == index)

    @property
    def samples(self) -> int:
        return len({chunk.index for chunk in self.chunks})

    @property
    def alternatives(self) -> int:
        """At the first token that has a probability; -1: none has."""
        return next((len(chunk.logprobs[0].top) for chunk in self.chunks if chunk.logprobs), -1)

    @property
    def prompt_tokens(self) -> int:
        return sum(chunk.prompt_tokens for chunk in self.chunks)


Ask = Callable[[Mapping[str, Any]], Awaitable[Reply]]
"""The endpoint's answer to a body; `messages` go to the chat, a `prompt` to completions."""
Continue = Callable[[Prefill], Awaitable[str]]
"""What the endpoint says to the question of `wire/prefill.py`, its answer begun in that way."""


async def find_abilities(
    assumed: Abilities, ask: Ask, go_on: Continue, ways: tuple[Prefill, ...], asked: frozenset[Question]
) -> Abilities:
    """The abilities assumed, corrected by the answers to these questions; those without an answer stay open."""
    questions: dict[Question, Callable[[], Awaitable[dict[str, Any]]]] = {
        "n": lambda: _samples(ask, assumed),
        "logprobs": lambda: _logprobs(ask),
        "ids": lambda: _takes_ids(ask),
        "structured": lambda: _structured(ask),
        "prefill": lambda: _prefill(go_on, ways),
    }
    found, left = assumed, set[Question]()
    for name in (name for name in questions if name in asked):
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                found = replace(found, **await questions[name]())
        except (EngineBusy, EngineDead, TimeoutError):
            left.add(name)
    return replace(found, open=frozenset(left))


async def _samples(ask: Ask, assumed: Abilities) -> dict[str, Any]:
    wide = await _answer(ask, _chat(ODD, n=2, seed=11, temperature=2.0)) if assumed.most_samples != 1 else None
    if wide is None or wide.samples < 2:
        first = await _answer(ask, _chat(ODD, seed=12, temperature=2.0))
        again = await _answer(ask, _chat(ODD, seed=12, temperature=2.0))
        same = first.text() == again.text() if first and again else None
        return {"most_samples": 1, "seeds": same}
    alone = await _answer(ask, _chat(ODD, seed=12, temperature=2.0))
    return {"seeds": alone.text() == wide.text(1) if alone else None}


async def _logprobs(ask: Ask) -> dict[str, Any]:
    for most in (MOST_LOGPROBS, 5, 0):
        reply = await _answer(ask, _chat(GREETING, logprobs=True, top_logprobs=most, max_tokens=1, temperature=0.0))
        if reply is not None:
            ids = any(chunk.token_ids for chunk in reply.chunks)
            return {"logprobs": min(most, reply.alternatives), "sends_ids": ids}
    return {"logprobs": -1}


async def _takes_ids(ask: Ask) -> dict[str, Any]:
    """One more may be the mark of the beginning, which the server puts in front."""
    reply = await _answer(ask, {"prompt": list(IDS), "max_tokens": 1, "temperature": 0.0})
    if reply is None:
        return {"takes_ids": False}
    found: dict[str, Any] = {"takes_ids": 0 <= reply.prompt_tokens - len(IDS) <= 1}
    return found | ({"sends_ids": True} if any(chunk.token_ids for chunk in reply.chunks) else {})


async def _structured(ask: Ask) -> dict[str, Any]:
    wanted = {"type": "json_schema", "json_schema": {"name": "greeting", "schema": SCHEMA, "strict": True}}
    reply = await _answer(ask, _chat(GREETING, response_format=wanted, temperature=0.0))
    return {"structured": reply is not None and reply.text().lstrip().startswith("{")}


async def _prefill(go_on: Continue, ways: tuple[Prefill, ...]) -> dict[str, Any]:
    return {"prefill": await find_prefill(go_on, ways)}


async def _answer(ask: Ask, fields: Mapping[str, Any]) -> Reply | None:
    """None where the endpoint refuses it or fails on it. Raises what says that it cannot be asked now."""
    try:
        return await ask(fields)
    except (EngineBusy, EngineDead):
        raise
    except (EngineError, RequestError):
        return None


def _chat(text: str, n: int = 1, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "n": n, "max_tokens": TOKENS, **fields}
