"""Every registered strategy on a real model over HTTP, by OpenAI's client: streamed, with a tool, with a schema."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import jsonschema
import openai
import pytest
import pytest_asyncio

from reason_engine.engines.embedded.front import Embedded
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.serving.api import chat
from reason_engine.serving.app import create_app
from reason_engine.types import Message
from tests.real.asking import NAMES, PATH, TOKENS, TURNS, generated, options

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="session")]
every_strategy = pytest.mark.parametrize("name", NAMES)

COUNT = {
    "type": "object",
    "properties": {"count": {"type": "integer", "minimum": 0, "maximum": 999}},
    "required": ["count"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "set_count", "description": "Notes a number.", "parameters": COUNT}}


@dataclass
class Streamed:
    """A stream as a client puts it together."""

    content: str = ""
    reasoning: str = ""
    calls: list[Any] = field(default_factory=list)
    finish: str | None = None
    reason: dict[str, Any] = field(default_factory=dict)
    usage: Any = None
    kinds: list[str] = field(default_factory=list)
    """What each chunk carried."""


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def client(engine: Embedded) -> AsyncIterator[openai.AsyncOpenAI]:
    app = create_app(engine)
    web = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app))
    async with openai.AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key="none", http_client=web) as made:
        yield made
    await app.state.service.equality.close()


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """What the server's runs ended with. Another run of the same request may differ in a word: other rows beside a path
    round its numbers otherwise."""
    found: list[Outcome] = []

    async def record(*args: Any, **named: Any) -> Outcome:
        found.append(await solve(*args, **named))
        return found[-1]

    monkeypatch.setattr(chat, "solve", record)
    return found


def body(name: str, **more: Any) -> dict[str, Any]:
    extra = {"reasoning": {"strategy": name, **options(name)}, "budget": {"tokens": TOKENS}}
    given = {"model": "smollm2", "messages": TURNS, "seed": 3, "max_completion_tokens": PATH}
    return {**given, "extra_body": extra, **more}


async def stream(client: openai.AsyncOpenAI, name: str, **more: Any) -> Streamed:
    got, told = Streamed(), {"include_usage": True}
    async for chunk in await client.chat.completions.create(**body(name, stream=True, stream_options=told, **more)):
        got.usage = chunk.usage or got.usage
        for choice in chunk.choices:
            delta = choice.delta
            thought = (delta.model_extra or {}).get("reasoning")
            got.content += delta.content or ""
            got.reasoning += thought or ""
            got.calls += delta.tool_calls or []
            got.finish = choice.finish_reason or got.finish
            got.kinds.append(
                "role" if delta.role else "reasoning" if thought else "content" if delta.content else "end"
            )
        got.reason = (chunk.model_extra or {}).get("reason") or got.reason
    return got


@every_strategy
async def test_a_conversation_is_streamed(
    client: openai.AsyncOpenAI, engine: Embedded, outcomes: list[Outcome], name: str
) -> None:
    before = await generated(engine)
    got = await stream(client, name)
    [outcome] = outcomes
    assert got.content == outcome.content and got.content.strip()
    assert got.reasoning == (outcome.reasoning or "")
    assert got.kinds == sorted(got.kinds, key=["role", "reasoning", "content", "end"].index)
    assert got.kinds.count("role") == got.kinds.count("end") == 1
    assert got.finish == outcome.finish_reason and got.finish in ("stop", "length")
    assert got.reason["strategy"] == name and got.reason["answer"] == outcome.answer.value
    assert got.usage.completion_tokens == outcome.usage.completion == await generated(engine) - before <= TOKENS
    prompt = engine.render_chat([Message(turn["role"], turn["content"]) for turn in TURNS])
    assert got.usage.prompt_tokens == len(engine.tokenize(prompt)), "every turn is in the prompt"
    assert sum(stage["completion"] for stage in got.reason["usage_by_stage"].values()) == got.usage.completion_tokens


@every_strategy
async def test_a_tool_that_has_to_be_called_is(
    client: openai.AsyncOpenAI, engine: Embedded, outcomes: list[Outcome], name: str
) -> None:
    got = await stream(client, name, tools=[TOOL], tool_choice="required")
    [outcome] = outcomes
    assert [(c.id, c.function.name, c.function.arguments) for c in got.calls] == [
        (call.id, call.name, call.arguments) for call in outcome.tool_calls
    ]
    assert got.content == outcome.content
    assert got.finish in ("tool_calls", "length")
    if got.finish == "tool_calls":
        assert [call.function.name for call in got.calls] == ["set_count"]
        jsonschema.validate(json.loads(got.calls[0].function.arguments), COUNT)
        assert got.content == ""
    await generated(engine)


@every_strategy
async def test_a_tool_that_may_be_called(client: openai.AsyncOpenAI, engine: Embedded, name: str) -> None:
    got = await client.chat.completions.create(**body(name, tools=[TOOL], tool_choice="auto"))
    [choice] = got.choices
    assert (choice.finish_reason == "tool_calls") == bool(choice.message.tool_calls)
    assert choice.message.tool_calls or choice.message.content
    await generated(engine)


@every_strategy
async def test_a_schema_holds(client: openai.AsyncOpenAI, engine: Embedded, name: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "count", "schema": COUNT}}
    got = await client.chat.completions.create(**body(name, response_format=form))
    [choice] = got.choices
    assert choice.finish_reason in ("stop", "length")
    if choice.finish_reason == "stop":
        jsonschema.validate(json.loads(choice.message.content), COUNT)
    await generated(engine)
