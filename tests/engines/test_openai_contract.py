"""The remote engine keeps the contract of all engines, in front of a scripted one that speaks vLLM's dialect.

OpenAI's own dialect cannot: it tells prompt tokens last, and not which stop string was met.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from reason_engine.engines.openai.engine import OpenAIEngine
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import RequestError
from reason_engine.types import Chunk, GenerateRequest, Sampling, Structured
from tests.engines.contract import EngineContract
from tests.engines.endpoint import Endpoint, Event
from tests.engines.test_scripted_contract import reply

MODEL = {"id": "m", "object": "model", "owned_by": "vllm", "max_model_len": 512}


class Server:
    """Translates between the wire and a scripted engine."""

    def __init__(self) -> None:
        self.scripted, self.numbers = Scripted(reply, context=512), count()

    async def answer(self, body: dict[str, Any]) -> Any:
        if body["model"] != "m":
            return 404, {"message": f"no model {body['model']!r}"}
        stream = self.scripted.generate(self.request(body))
        try:
            first = await anext(stream)
        except RequestError as error:
            return 400, {"message": error.message, "code": error.code, "param": error.param}
        return self.events(first, stream, chat="messages" in body)

    def request(self, body: dict[str, Any]) -> GenerateRequest:
        prompt = body.get("prompt") or "\n".join(turn["content"] for turn in body["messages"])
        made = body.get("structured_outputs", {})
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        structured = Structured(
            json_schema=json.dumps(schema) if schema else None, choice=tuple(made.get("choice", ()))
        )
        sampling = Sampling(
            max_tokens=body["max_tokens"],
            temperature=body["temperature"],
            seed=body["seed"],
            stop=tuple(body.get("stop", ())),
            include_stop=body["include_stop_str_in_output"],
            ignore_eos=body["ignore_eos"],
            logprobs=body.get("top_logprobs"),
            structured=structured if structured != Structured() else None,
        )
        return GenerateRequest(str(next(self.numbers)), prompt, body["n"], sampling)

    async def events(self, first: Chunk, stream: Any, *, chat: bool) -> AsyncIterator[Event]:
        made: Counter[int] = Counter()
        try:
            async for chunk in _chain(first, stream):
                made[chunk.index] += chunk.token_count
                yield _event(chunk, chat) | {"usage": _usage(first.prompt_tokens, made[chunk.index])}
            yield {"choices": [], "usage": _usage(first.prompt_tokens, made.total())}
        finally:
            await stream.aclose()


async def _chain(first: Chunk, rest: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    yield first
    async for chunk in rest:
        yield chunk


def _event(chunk: Chunk, chat: bool) -> dict[str, Any]:
    places = [
        {
            "token": place.token,
            "logprob": place.logprob,
            "top_logprobs": [{"token": token, "logprob": logprob} for _, token, logprob in place.top],
        }
        for place in chunk.logprobs
    ]
    text = {"delta": {"content": chunk.text}} if chat else {"text": chunk.text}
    ends = {"finish_reason": chunk.finish_reason, "stop_reason": chunk.stop_reason}
    return {"choices": [{"index": chunk.index, "logprobs": {"content": places}, **text, **ends}]}


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@pytest.fixture
async def engine() -> AsyncIterator[OpenAIEngine]:
    server = Server()
    await server.scripted.start()
    made = Endpoint(server.answer, models=(MODEL,)).engine()
    await made.start()
    yield made
    await made.close()
    assert server.scripted.running == 0


class TestOpenAI(EngineContract):
    pass
