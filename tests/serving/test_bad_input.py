"""What is wrong is refused in OpenAI's shape, naming the field, and nothing of it reaches the engine."""

import json

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.serving.api.errors import parse_object
from reason_engine.settings import Settings

Q = {"role": "user", "content": "What is 2 + 2?"}
IMAGE = [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]
TOOL = {"type": "function", "function": {"name": "add"}}

ROWS: list[tuple[dict[str, object], int, str | None, str]] = [
    # body, status, param, a part of the message
    ({"reasoning": {"strategy": "tree-of-thought"}}, 400, "reasoning.strategy", "did you mean 'tree-of-thoughts'"),
    ({"reasoning": {"strategy": ""}}, 400, "reasoning.strategy", "one of"),
    ({"reasoning": {"strategy": 3}}, 400, "reasoning.strategy", "string"),
    ({"reasoning": {"strategy": "self-consistency", "m": 4}}, 400, "reasoning.m", "one of: adaptive, answer_kind"),
    ({"reasoning": {"strategy": "self-consistency", "adaptiv": True}}, 400, "reasoning.adaptiv", "'adaptive'"),
    ({"reasoning": {"strategy": "self-consistency", "n": 257}}, 400, "reasoning.n", "<= 256"),
    ({"reasoning": {"strategy": "self-consistency", "n": 0}}, 400, "reasoning.n", "nearest valid value is 1"),
    ({"reasoning": {"strategy": "self-consistency", "n": 2**63}}, 400, "reasoning.n", "nearest valid value is 256"),
    ({"reasoning": {"strategy": "self-consistency", "n": -1}}, 400, "reasoning.n", ">= 1"),
    ({"reasoning": {"strategy": "self-consistency", "n": 1.5}}, 400, "reasoning.n", "1.5"),
    ({"reasoning": {"strategy": "self-consistency", "n": "8"}}, 400, "reasoning.n", "integer"),
    ({"reasoning": {"strategy": "self-consistency", "n": True}}, 400, "reasoning.n", "integer"),
    ({"reasoning": {"strategy": "self-consistency", "n": None}}, 400, "reasoning.n", "integer"),
    ({"reasoning": {"strategy": "tree-of-thoughts", "depth": 10**6}}, 400, "reasoning.depth", "<="),
    ({"reasoning": {"strategy": "tree-of-thoughts", "search": "width"}}, 400, "reasoning.search", "breadth"),
    (
        {"reasoning": {"strategy": "tree-of-thoughts", "search": "breadth", "breadth": 64, "k": 64}},
        400, "reasoning.k", "256",
    ),
    ({"reasoning": {"temperature": 3}}, 400, "reasoning.temperature", "<= 2"),
    ({"reasoning": {"verifier": "nonesuch"}}, 400, "reasoning.verifier", "nonesuch"),
    ({"reasoning": {"verifier": {"nam": "exact"}}}, 400, "reasoning.verifier", ""),
    ({"reasoning": {"effort": "extreme"}}, 400, "reasoning.effort", "one of"),
    ({"reasoning": {"enabled": "yes"}}, 400, "reasoning.enabled", "bool"),
    ({"reasoning": "hard"}, 400, "reasoning", "hard"),
    ({"reasoning_effort": "hihg"}, 400, "reasoning_effort", "did you mean 'high'"),
    ({"budget": {"token": 5}}, 400, "budget.token", "'tokens'"),
    ({"budget": {"tokens": 0}}, 400, "budget.tokens", ">= 1"),
    ({"budget": {"tokens": 131_073}}, 400, "budget.tokens", "131072"),
    ({"budget": {"seconds": 541}}, 400, "budget.seconds", "540"),
    ({"budget": {"seconds": -0.5}}, 400, "budget.seconds", "> 0"),
    ({"budget": {"samples": 1_025}}, 400, "budget.samples", "1024"),
    ({"budget": [1]}, 400, "budget", ""),
    ({"model": "scriptde"}, 404, "model", "did you mean 'scripted'"),
    ({"model": "scripted:nonesuch"}, 404, "model", "no model"),
    ({"model": "other:direct"}, 404, "model", "no model"),
    ({"model": 5}, 400, "model", "string"),
    ({"messages": []}, 400, "messages", "items >= 1"),
    ({"messages": None}, 400, "messages", ""),
    ({"messages": "hello"}, 400, "messages", "hello"),
    ({"messages": ["hello"]}, 400, "messages.0", "object"),
    ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages.0.role", "user"),
    ({"messages": [{"content": "x"}]}, 400, "messages.0.role", "user"),
    ({"messages": [{"role": "user"}]}, 400, "messages.0.content", "required"),
    ({"messages": [{"role": "user", "content": " "}]}, 400, "messages.0.content", "empty"),
    ({"messages": [{"role": "user", "content": 5}]}, 400, "messages.0.content", "string"),
    ({"messages": [{"role": "user", "content": IMAGE}]}, 400, "messages.0.content.0.type", "text only"),
    ({"messages": [{"role": "user", "content": [5]}]}, 400, "messages.0.content.0", "object"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "messages.0.content.0.text", "string"),
    ({"messages": [{"role": "system", "content": "x"}]}, 400, "messages", "user turn"),
    ({"messages": [Q, {"role": "tool", "content": "x"}]}, 400, "messages.1.tool_call_id", "required"),
    ({"messages": [Q, {"role": "assistant", "tool_calls": 5}]}, 400, "messages.1.tool_calls", "list"),
    ({"messages": [Q, {"role": "assistant", "tool_calls": [5]}]}, 400, "messages.1.tool_calls.0.function", "name"),
    ({"messages": [Q, {"role": "assistant", "reasoning": 5}]}, 400, "messages.1.reasoning", "string"),
    ({"n": 129}, 400, "n", "<= 128"),
    ({"n": 16384}, 400, "n", "128"),
    ({"n": -1}, 400, "n", ">= 1"),
    ({"n": "8"}, 400, "n", "integer"),
    ({"n": 20, "reasoning": {"strategy": "self-consistency", "n": 16}}, 400, "n", "nearest valid value is 16"),
    ({"temperature": 2.1}, 400, "temperature", "<= 2"),
    ({"temperature": "hot"}, 400, "temperature", "number"),
    ({"top_p": 0}, 400, "top_p", "> 0"),
    ({"top_k": -2}, 400, "top_k", ">= -1"),
    ({"presence_penalty": 2.5}, 400, "presence_penalty", "<= 2"),
    ({"frequency_penalty": -2.5}, 400, "frequency_penalty", ">= -2"),
    ({"max_tokens": 0}, 400, "max_tokens", ">= 1"),
    ({"max_tokens": 5000}, 400, "max_tokens", "4096"),
    ({"max_completion_tokens": 10**400}, 400, "max_completion_tokens", ""),
    ({"seed": 2**64}, 400, "seed", "<="),
    ({"seed": 1.5}, 400, "seed", "integer"),
    ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop", "at most 4"),
    ({"stop": [""]}, 400, "stop", "1 to 256"),
    ({"stop": [5]}, 400, "stop", "string"),
    ({"top_logprobs": 2}, 400, "top_logprobs", "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs", "<= 20"),
    ({"logit_bias": {"x": 1}}, 400, "logit_bias", "token id"),
    ({"logit_bias": {"5": 101}}, 400, "logit_bias.5", ""),
    ({"stream_options": {"include_usage": True}}, 400, "stream_options", "stream"),
    ({"stream": "yes"}, 400, "stream", "boolean"),
    ({"response_format": {"type": "xml"}}, 400, "response_format.type", "json_object"),
    ({"response_format": {"type": "json_schema"}}, 400, "response_format.json_schema", "required"),
    ({"tools": [{"type": "function"}]}, 400, "tools.0.function", "required"),
    ({"tools": [{"type": "retrieval", "function": {"name": "x"}}]}, 400, "tools.0.type", "function"),
    ({"tools": [TOOL], "tool_choice": "maybe"}, 400, "tool_choice", "required"),
    ({"tool_choice": "required"}, 400, "tool_choice", "without tools"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "sub"}}}, 400, "tool_choice", "add"),
    ({"audio": {"voice": "x"}}, 400, "audio", "text"),
    ({"modalities": ["text", "audio"]}, 400, "modalities", "text"),
    ({"prediction": {}}, 400, "prediction", "draft"),
    ({"web_search_options": {}}, 400, "web_search_options", "search"),
    ({"moderation": {}}, 400, "moderation", "moderate"),
    ({"functions": []}, 400, "functions", "tools"),
    ({"function_call": "auto"}, 400, "function_call", "tool_choice"),
    ({"chat_template": "{{ 1 }}"}, 400, "chat_template", "templates"),
    ({"chat_template_kwargs": {"x": 1}}, 400, "chat_template_kwargs.x", "enable_thinking"),
    ({"prompt_logprobs": -1}, 400, "prompt_logprobs", "not offered"),
]  # fmt: skip


def _is_openai_error(got, status: int, param: str | None) -> None:
    assert got.status_code == status, got.text
    assert set(got.json()) == {"error"}
    error = got.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["code"], str) and isinstance(error["message"], str)
    assert error["param"] == param, error
    assert got.headers["x-request-id"]


@pytest.mark.parametrize(("body", "status", "param", "part"), ROWS, ids=lambda value: str(value)[:60])
async def test_a_wrong_field(local, body, status, param, part) -> None:
    async with local() as house:
        streamed = [] if {"stream", "stream_options"} & set(body) else [{**body, "stream": True}]
        for sent in [body, *streamed]:
            got = await house.chat(**sent)
            _is_openai_error(got, status, param)
            assert part in got.json()["error"]["message"]
        assert house.engine.requests == house.engine.chooses == 0
        assert house.app.state.service.gate.held == 0


RAW = {
    "empty": b"",
    "not json": b"{",
    "not utf-8": b'{"messages": "\xff"}',
    "array": b"[]",
    "null": b"null",
    "nan": b'{"temperature": NaN}',
    "infinity": b'{"temperature": -Infinity}',
    "duplicate": b'{"n": 1, "n": 2}',
    "deep": b'{"x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "deep but parsed": b'{"x": ' + b"[" * 200 + b"]" * 200 + b"}",
    "huge integer": b'{"n": ' + b"9" * 5000 + b"}",
    "surrogate": b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "form": b"messages=hello",
}


@pytest.mark.parametrize("body", RAW.values(), ids=RAW)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/tokenize", "/detokenize"])
async def test_a_body_that_is_no_json_object(local, body, path) -> None:
    async with local() as house:
        got = await house.http.post(path, content=body)
        assert got.status_code == 400 and got.json()["error"]["code"] == "invalid_json", got.text
        assert house.engine.requests == 0


def test_a_pair_of_surrogates_is_text() -> None:
    assert parse_object(b'{"a": "\\ud83d\\ude00"}') == {"a": "\N{GRINNING FACE}"}


async def test_a_prompt_over_the_context(local) -> None:
    async with local(Scripted(context=64)) as house:
        for words in (100, 100_000):
            got = await house.chat(messages=[{"role": "user", "content": "word " * words}])
            _is_openai_error(got, 400, "messages")
            assert got.json()["error"]["code"] == "context_length_exceeded"
        assert house.engine.requests == 0


async def test_a_prompt_far_over_the_context_is_not_tokenised_to_its_end(local) -> None:
    class Counting(Scripted):
        seen = 0

        def tokenize(self, text: str) -> list[int]:
            self.seen += len(text)
            return super().tokenize(text)

    engine = Counting(context=64)
    async with local(engine) as house:
        got = await house.chat(messages=[{"role": "user", "content": "word " * 300_000}])
        assert got.status_code == 400
        assert engine.seen <= 32_768


async def test_a_body_over_the_limit(local) -> None:
    async with local(settings=Settings(max_body=2_000)) as house:
        got = await house.chat(messages=[{"role": "user", "content": "x" * 2_000}])
        _is_openai_error(got, 413, None)
        assert got.json()["error"]["code"] == "request_too_large"


async def test_a_body_without_a_length_is_cut_at_the_limit(local) -> None:
    sent = 0

    async def pieces():
        nonlocal sent
        for _ in range(100):
            sent += 1_000
            yield b" " * 1_000

    async with local(settings=Settings(max_body=2_000)) as house:
        got = await house.http.post("/v1/chat/completions", content=pieces())
        assert got.status_code == 413 and sent <= 4_000


async def test_unknown_routes_and_methods(local) -> None:
    async with local() as house:
        for method, path, status in (
            ("GET", "/v1/nope", 404),
            ("GET", "/v1/chat/completions", 405),
            ("DELETE", "/v1/models", 405),
            ("GET", "/v1/models/nope", 404),
            ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404),
            ("GET", "/v1/traces/nope", 404),
            ("GET", "/v1/traces/..%2f..%2fetc%2fpasswd", 404),
        ):
            got = await house.http.request(method, path)
            assert got.status_code == status and set(got.json()["error"]) == {"message", "type", "param", "code"}


async def test_wrong_tokens(local) -> None:
    async with local() as house:
        for path, body, param in (
            ("/tokenize", {}, "prompt"),
            ("/tokenize", {"prompt": 5}, "prompt"),
            ("/tokenize", {"messages": [{"role": "x"}]}, "messages.0.role"),
            ("/detokenize", {"tokens": [10**9]}, "tokens"),
            ("/detokenize", {"tokens": ["a"]}, "tokens.0"),
            ("/detokenize", {}, "tokens"),
        ):
            got = await house.http.post(path, content=json.dumps(body))
            assert got.status_code == 400 and got.json()["error"]["param"] == param, got.text
        assert (await house.http.post("/tokenize", json={"prompt": "x", "model": "no"})).status_code == 404
