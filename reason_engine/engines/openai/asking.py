"""The questions of the start, put to one endpoint: which are open for its kind, and how each goes out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from reason_engine.engines.openai.abilities import Abilities, Question
from reason_engine.engines.openai.config import OpenAIConfig, is_openai
from reason_engine.engines.openai.exchange import Exchange
from reason_engine.engines.openai.kinds import Found
from reason_engine.engines.openai.probe import Reply, find_abilities
from reason_engine.engines.openai.upstream import Upstream
from reason_engine.engines.openai.wire.dialects import DIALECTS
from reason_engine.engines.openai.wire.prefill import BEGUN, PROBE_TOKENS, QUESTION, WAYS, BegunTurn, Prefill
from reason_engine.types import ModelInfo

ALL: frozenset[Question] = frozenset({"n", "logprobs", "ids", "structured", "prefill"})


def assumed(config: OpenAIConfig, found: Found) -> Abilities:
    """What is known without asking: of the kind of server, and as configured. `open` has the questions."""
    known = {
        "vllm": Abilities(sends_ids=True, takes_ids=True, prefill="flags"),
        "sglang": Abilities(takes_ids=True, prefill="flags"),
        "llama.cpp": Abilities(most_samples=found.slots, sends_ids=True, takes_ids=True),
    }.get(found.kind, Abilities())
    asked = ALL if config.probe and not is_openai(config.base_url) else frozenset({"prefill"})
    if config.logprobs is not None:
        known, asked = replace(known, logprobs=config.logprobs), asked - {"logprobs"}
    if config.prefill != "auto":
        known = replace(known, prefill=None if config.prefill == "no" else config.prefill)
    if config.prefill != "auto" or known.prefill or is_openai(config.base_url):
        asked -= {"prefill"}
    return replace(known, open=asked)


async def answers(
    upstream: Upstream, config: OpenAIConfig, found: Found, model: str, info: ModelInfo, known: Abilities
) -> Abilities:
    """The abilities known, corrected by what the endpoint answers to the questions that are open."""
    dialect = DIALECTS[found.kind]
    exchange = Exchange(model, dialect, info, extra=config.extra_body)

    async def ask(fields: Mapping[str, Any]) -> Reply:
        options = {"include_usage": True}
        sent = {"stream": True, "stream_options": options, "n": 1, "seed": 0, **dialect.always, **fields}
        if "prompt" in fields:
            sent |= dialect.ids
        if "max_tokens" in sent and "messages" in sent:
            sent[config.limit_field] = sent.pop("max_tokens")
        async with aclosing(exchange.replies(upstream, sent)) as chunks:
            return Reply(tuple([chunk async for chunk in chunks]))

    async def go_on(way: Prefill) -> str:
        begun = BegunTurn(way, info.think_start, info.think_end)
        turns = [{"role": "user", "content": QUESTION}, begun.turn(BEGUN)]
        reply = await ask({"messages": turns, "max_tokens": PROBE_TOKENS, "temperature": 0.0, **begun.fields})
        return reply.text()

    found_here = await find_abilities(known, ask, go_on, WAYS, known.open)
    if "ids" in known.open and known.open != found_here.open:
        # vLLM and SGLang read `prompt`, llama.cpp's server `content`.
        tokenizes = await upstream.counts("/tokenize", {"model": model, "prompt": "a", "content": "a"})
        found_here = replace(found_here, tokenizes=tokenizes)
    return found_here
