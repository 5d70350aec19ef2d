"""Server-sent events over a socket: order, equality with the unstreamed answer, errors, and what a disconnect stops."""

import asyncio
import json

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.errors import EngineError
from reason_engine.settings import Settings

QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]
BODIES = {
    "direct": {},
    "chain": {"reasoning": {"strategy": "chain-of-thought"}},
    "vote": {"reasoning": {"strategy": "self-consistency", "n": 5}},
    "waves": {"reasoning": {"strategy": "self-consistency", "n": 8, "adaptive": True}},
    "best": {"reasoning": {"strategy": "best-of-n", "n": 3}},
    "tree": {"reasoning": {"strategy": "tree-of-thoughts", "visits": 3, "k": 2}},
    "choices": {"n": 3, "reasoning": {"strategy": "self-consistency", "n": 3}},
    "no reasoning": {"reasoning": {"strategy": "chain-of-thought", "exclude": True}},
}


async def events(response) -> list[object]:
    """The data of a whole stream; comments left out."""
    found: list[object] = []
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            found.append(line[6:] if line == "data: [DONE]" else json.loads(line[6:]))
    return found


def joined(chunks: list[dict], field: str, index: int = 0) -> str:
    return "".join(
        choice["delta"].get(field) or "" for chunk in chunks for choice in chunk["choices"] if choice["index"] == index
    )


async def stream(house, **body) -> list[dict]:
    given = {"model": "scripted", "messages": QUESTION, "stream": True, **body}
    async with house.http.stream("POST", "/v1/chat/completions", json=given) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no" and response.headers["cache-control"] == "no-cache"
        assert response.headers["x-request-id"]
        found = await events(response)
    assert found[-1] == "[DONE]"
    return found[:-1]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_joined_deltas_equal_the_unstreamed_fields(live, body) -> None:
    async with live() as house:
        whole = (await house.chat(seed=3, **body)).json()
        chunks = await stream(house, seed=3, stream_options={"include_usage": True}, **body)
        for choice in whole["choices"]:
            index, message = choice["index"], choice["message"]
            assert joined(chunks, "content", index) == message["content"]
            assert joined(chunks, "reasoning", index) == (message.get("reasoning") or "")
            assert joined(chunks, "reasoning_content", index) == (message.get("reasoning") or "")
        assert chunks[-1]["usage"] == whole["usage"]
        assert house.engine.generated == 2 * whole["usage"]["completion_tokens"]
        assert house.engine.running == 0


async def test_the_order_of_chunks(live) -> None:
    async with live() as house:
        chunks = await stream(house, **BODIES["vote"])
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        kinds = [next(iter(chunk["choices"][0]["delta"]), "finish") for chunk in chunks[1:]]
        assert kinds == sorted(kinds, key=["reasoning", "content", "finish"].index)
        last = chunks[-1]
        assert last["choices"][0]["finish_reason"] == "stop"
        assert last["reason"]["answer"] == last["choices"][0]["reason"]["answer"] == "4"
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])
        assert not any("usage" in chunk for chunk in chunks), "usage only where it is asked for"
        assert len({chunk["id"] for chunk in chunks}) == 1


async def test_the_real_client_reads_it(live) -> None:
    async with live() as house:
        got = await house.client.chat.completions.create(
            model="scripted:chain-of-thought", messages=QUESTION, stream=True, logprobs=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        text, usage, tokens = "", None, []
        async for chunk in got:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                tokens += choice.logprobs.content if choice.logprobs else []
        assert text.startswith("Answer:") and usage.completion_tokens == house.engine.generated
        assert "".join(token.token for token in tokens).strip() in text


async def test_one_path_arrives_while_it_is_made(live) -> None:
    go = asyncio.Event()

    async def gate(request, index, position) -> None:
        if position == 3:
            await go.wait()

    async with live(Scripted(lambda prompt, seed, index: "one two three four", gate=gate)) as house:
        given = {"messages": QUESTION, "stream": True}
        async with house.http.stream("POST", "/v1/chat/completions", json=given) as response:
            lines, seen = response.aiter_lines(), ""
            while seen != "one two three":
                line = await anext(lines)
                if line.startswith("data: "):
                    seen += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
            assert house.engine.running == 1, "the rest has not been made yet"
            go.set()
            rest = [line async for line in lines]
        assert rest[-2] == "data: [DONE]" or rest[-1] == "data: [DONE]"


async def test_events_only_where_they_are_asked_for(live) -> None:
    async with live() as house:
        body = {"reasoning": {"strategy": "self-consistency", "n": 3}}
        assert not any("events" in (chunk.get("reason") or {}) for chunk in await stream(house, **body))
        chunks = await stream(house, stream_options={"include_events": True}, **body)
        found = [event for chunk in chunks for event in (chunk.get("reason") or {}).get("events", [])]
        kinds = [event["kind"] for event in found]
        assert kinds[0] == "opened" and kinds[-1] == "closed" and kinds.count("sampled") == 3
        assert all(len(chunk["choices"]) == 1 for chunk in chunks)


async def test_tool_calls_are_a_delta(live) -> None:
    from reason_engine.contracts import Parsed
    from reason_engine.types import ToolCall

    class Caller(Scripted):
        def parse(self, text: str, *, prompt: str = "") -> Parsed:
            return Parsed("", None, (ToolCall("c1", "add", '{"a": 1}'),))

    tools = [{"type": "function", "function": {"name": "add"}}]
    async with live(Caller(lambda prompt, seed, index: "<tool_call> x </tool_call>")) as house:
        chunks = await stream(house, tools=tools)
        last = chunks[-1]["choices"][0]
        assert joined(chunks, "content") == "" and last["finish_reason"] == "tool_calls"
        assert last["delta"]["tool_calls"][0] == {
            "index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'},
        }  # fmt: skip
        whole = (await house.chat(tools=tools)).json()["choices"][0]
        assert whole["message"]["content"] is None and whole["message"]["tool_calls"][0]["id"] == "c1"


async def test_an_error_before_the_first_text_has_its_own_status(live) -> None:
    def fail(request, index, position) -> None:
        raise EngineError("out of memory")

    async with live(Scripted(fail=fail)) as house:
        got = await house.chat(stream=True)
        assert got.status_code == 500 and got.headers["x-should-retry"] == "false"
        assert got.headers["content-type"] == "application/json"


async def test_an_error_in_the_middle_is_said_and_then_done(live) -> None:
    def fail(request, index, position) -> None:
        if position == 2:
            raise EngineError("out of memory")

    go = asyncio.Event()

    async def gate(request, index, position) -> None:
        if position == 2:
            await go.wait()

    async with live(Scripted(lambda prompt, seed, index: "two and two", fail=fail, gate=gate)) as house:
        given = {"messages": QUESTION, "stream": True}
        async with house.http.stream("POST", "/v1/chat/completions", json=given) as response:
            lines = response.aiter_lines()
            while "two" not in await anext(lines):
                pass
            go.set()
            rest = [line async for line in lines if line.startswith("data: ")]
        assert rest[-1] == "data: [DONE]"
        error = json.loads(rest[-2][6:])["error"]
        assert error["code"] == "engine_error" and error["type"] == "server_error" and "memory" in error["message"]
        assert house.engine.running == 0


async def test_silence_is_filled_with_comments(live) -> None:
    go = asyncio.Event()

    async def gate(request, index, position) -> None:
        await go.wait()

    async with live(Scripted(gate=gate), settings=Settings(keepalive_seconds=0.02)) as house:
        given = {"messages": QUESTION, "stream": True}
        async with house.http.stream("POST", "/v1/chat/completions", json=given) as response:
            comments = 0
            async for line in response.aiter_lines():
                comments += line == ": keep-alive"
                if comments == 3:
                    go.set()
            assert line in ("", "data: [DONE]") and comments >= 3


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("strategy", ["direct", "self-consistency", "best-of-n", "tree-of-thoughts"])
async def test_a_client_that_leaves_stops_every_branch(live, eventually, caplog, streamed, strategy) -> None:
    never = asyncio.Event()

    async def gate(request, index, position) -> None:
        if position == 4:
            await never.wait()

    engine = Scripted(lambda prompt, seed, index: "a b c d e f g h", gate=gate)
    async with live(engine) as house:
        given = {"messages": QUESTION, "stream": streamed, "reasoning": {"strategy": strategy}}
        task = asyncio.create_task(house.http.post("/v1/chat/completions", json=given))
        await eventually(
            lambda: engine.running >= (1 if strategy == "direct" else 4) and engine.generated >= engine.running * 4
        )
        open_ = engine.running
        task.cancel()
        await asyncio.wait([task])
        await eventually(lambda: engine.running == 0)
        assert engine.aborted == open_
        await eventually(lambda: house.app.state.service.gate.requests == 0)
        metrics = (await house.http.get("/metrics")).text
        assert f'reason_requests_total{{outcome="cancelled",strategy="{strategy}"}} 1.0' in metrics
        assert "reason_sequences_running 0.0" in metrics
    assert not [record for record in caplog.records if record.levelname == "ERROR"], "leaving is no failure"


async def test_a_slow_reader_costs_no_more_than_its_text(live) -> None:
    """What waits while nothing is read is joined into a few chunks."""
    go = asyncio.Event()

    async def gate(request, index, position) -> None:
        if position == 1:
            await go.wait()

    words = " ".join(f"w{i}" for i in range(2000))
    async with live(Scripted(lambda prompt, seed, index: words, gate=gate)) as house:
        given = {"messages": QUESTION, "stream": True}
        async with house.http.stream("POST", "/v1/chat/completions", json=given) as response:
            lines, text, count = response.aiter_lines(), "", 0
            go.set()
            async for line in lines:
                if line.startswith("data: {"):
                    count += 1
                    text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
        assert text == words and count <= 2003


async def test_a_reader_who_takes_nothing_is_given_up(local, monkeypatch) -> None:
    monkeypatch.setattr("reason_engine.serving.api.stream.SEND_SECONDS", 0.0)
    never, body = asyncio.Event(), json.dumps({"messages": QUESTION, "stream": True}).encode()
    incoming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict:
        if incoming:
            return incoming.pop()
        await never.wait()
        return {"type": "http.disconnect"}

    async def send(message) -> None:
        if message["type"] == "http.response.body":
            await never.wait()

    async def gate(request, index, position) -> None:
        if position == 2:
            await never.wait()

    engine = Scripted(lambda prompt, seed, index: "a b c d", gate=gate)
    async with local(engine, settings=Settings(keepalive_seconds=0.01)) as house:
        scope = {
            "type": "http", "method": "POST", "path": "/v1/chat/completions", "raw_path": b"", "query_string": b"",
            "headers": [(b"host", b"localhost")], "http_version": "1.1", "scheme": "http", "asgi": {"version": "3.0"},
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "root_path": "",
        }  # fmt: skip
        async with asyncio.timeout(10):
            await house.app(scope, receive, send)
        assert engine.running == 0 and engine.aborted == 1 and house.app.state.service.gate.held == 0


async def test_many_clients_at_once_get_whole_answers_and_exact_accounts(live) -> None:
    async with live(settings=Settings(capacity=10_000)) as house:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(stream(house, stream_options={"include_usage": True}, **body))
                for body in list(BODIES.values()) * 4
            ]
        spent = 0
        for task in tasks:
            chunks = task.result()
            ends = [choice for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
            assert ends and all(end["finish_reason"] == "stop" for end in ends)
            spent += chunks[-1]["usage"]["completion_tokens"]
        assert spent == house.engine.generated and house.engine.running == 0
