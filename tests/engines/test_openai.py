"""The remote engine against a scripted endpoint that is spoken to through the SDK's own client."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr, ValidationError

from reason_engine.engines.openai import OpenAIConfig, OpenAIEngine, option_shares
from reason_engine.errors import (
    CapabilityMissing,
    ContextLengthExceeded,
    EngineBusy,
    EngineDead,
    EngineError,
    RequestError,
    UnknownModel,
)
from reason_engine.types import (
    ChoiceRequest,
    Chunk,
    GenerateRequest,
    Message,
    Sampling,
    ScoreRequest,
    Structured,
    ToolCall,
)
from tests.engines.endpoint import Endpoint, Event, choice, usage
from tests.models import write_tokenizer

HELLO = (Message("user", "hello"),)


class Running:
    """`async with Running(engine)`: started, then closed."""

    def __init__(self, engine: OpenAIEngine) -> None:
        self.engine = engine

    async def __aenter__(self) -> OpenAIEngine:
        await self.engine.start()
        return self.engine

    async def __aexit__(self, *error: object) -> None:
        await self.engine.close()


async def read(
    engine: OpenAIEngine, n: int = 1, prompt: str | tuple[int, ...] | None = None, **sampling: Any
):
    asked = engine.render_chat(HELLO) if prompt is None else prompt
    request = GenerateRequest("r", asked, n=n, sampling=Sampling(**sampling))
    return [chunk async for chunk in engine.generate(request)]


def text(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


def tokens(chunks: list[Chunk]) -> int:
    return sum(chunk.token_count for chunk in chunks)


async def test_streams_text_and_counts_what_the_endpoint_counts() -> None:
    endpoint = Endpoint(
        lambda body: [choice(role="assistant", content=""), choice(content="a"), choice(content="b c"),
                      choice(finish="stop"), usage(7, 5, cached=3)]
    )  # fmt: skip
    async with Running(endpoint.engine()) as engine:
        chunks = await read(engine)
        assert (await engine.health()).generated_tokens == 5
    assert [chunk.text for chunk in chunks] == ["a", "b c", ""]
    assert tokens(chunks) == 5
    assert chunks[-1].finish_reason == "stop"
    assert sum(chunk.prompt_tokens for chunk in chunks) == 7
    assert sum(chunk.cached_tokens for chunk in chunks) == 3
    assert endpoint.open == 0


async def test_the_body_says_what_was_asked() -> None:
    endpoint = Endpoint(lambda body: [choice(content="x", finish="stop")])
    sampling = {
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 4, "stop": ("\n",), "logit_bias": ((5, -2.0),),
        "presence_penalty": 0.5, "structured": Structured(json_schema='{"type": "object"}'),
    }  # fmt: skip
    tool = {"type": "function", "function": {"name": "f"}}
    async with Running(endpoint.engine(extra_body={"user": "u"})) as engine:
        turns = [Message("system", "be brief"), *HELLO, Message("assistant", tool_calls=(ToolCall("1", "f", "{}"),)),
                 Message("tool", "42", tool_call_id="1")]  # fmt: skip
        prompt = engine.render_chat(turns, tools=[tool], think=False)
        await read(engine, prompt=prompt, **sampling)
    sent = endpoint.bodies[0]
    assert sent["model"] == "m"
    assert sent["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
    ]  # fmt: skip
    assert sent["tools"] == [tool]
    assert (sent["max_tokens"], sent["temperature"], sent["top_p"], sent["seed"]) == (9, 0.5, 0.9, 4)
    assert (sent["stop"], sent["logit_bias"], sent["presence_penalty"]) == (["\n"], {"5": -2.0}, 0.5)
    assert sent["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (sent["reasoning_effort"], sent["user"], sent["stream_options"]) == (
        "none",
        "u",
        {"include_usage": True},
    )
    assert "top_k" not in sent


async def test_plain_text_goes_to_completions() -> None:
    endpoint = Endpoint(lambda body: [{"choices": [{"index": 0, "text": "x", "finish_reason": "length"}]}])
    async with Running(endpoint.engine(limit_field="max_completion_tokens")) as engine:
        chunks = await read(engine, prompt="Once", max_tokens=3)
        await read(engine, prompt='{"messages": [ is no conversation', max_tokens=3)
    assert (text(chunks), chunks[-1].finish_reason) == ("x", "length")
    assert endpoint.paths == ["/v1/completions", "/v1/completions"]
    assert (endpoint.bodies[0]["prompt"], endpoint.bodies[0]["max_tokens"]) == ("Once", 3)


async def test_samples_of_one_request_are_kept_apart() -> None:
    endpoint = Endpoint(
        lambda body: [choice(1, content="b"), choice(0, content="a"), choice(1, content="b", finish="stop"),
                      choice(0, finish="length"), usage(4, 6)]
    )  # fmt: skip
    async with Running(endpoint.engine()) as engine:
        chunks = await read(engine, n=2)
    assert (text(chunks, 0), text(chunks, 1), tokens(chunks)) == ("a", "bb", 6)
    assert {chunk.index: chunk.finish_reason for chunk in chunks if chunk.finish_reason} == {
        0: "length",
        1: "stop",
    }
    assert [chunk.prompt_tokens for chunk in chunks if chunk.prompt_tokens] == [4]
    assert len(endpoint.bodies) == 1


@pytest.mark.parametrize("refuses", [True, False], ids=["refuses n", "ignores n"])
async def test_an_endpoint_without_n_is_asked_n_times(refuses: bool) -> None:
    def script(body: dict[str, Any]) -> Any:
        if refuses and body["n"] > 1:
            return 400, {"message": "n must be 1", "param": "n"}
        return [choice(content=f"seed {body['seed']}"), choice(finish="stop"), usage(4, 3)]

    endpoint = Endpoint(script)
    async with Running(endpoint.engine()) as engine:
        chunks = await read(engine, n=3, seed=10)
        assert [text(chunks, index) for index in range(3)] == ["seed 10", "seed 11", "seed 12"]
        assert tokens(chunks) == 9
        asked = len(endpoint.bodies)
        await read(engine, n=3, seed=10)
    assert asked == (4 if refuses else 3)
    assert len(endpoint.bodies) == asked + 3  # it has learnt


async def test_reasoning_comes_back_between_think_markers() -> None:
    endpoint = Endpoint(
        lambda body: [choice(reasoning="be"), choice(reasoning_content="cause"), choice(content="4"),
                      choice(content="2"), choice(finish="stop")]
    )  # fmt: skip
    async with Running(endpoint.engine()) as engine:
        whole = text(await read(engine))
        parsed = engine.parse(whole)
    assert whole == "<think>because</think>42"
    assert (parsed.reasoning, parsed.content) == ("because", "42")


async def test_reasoning_cut_off_is_closed_and_no_content() -> None:
    endpoint = Endpoint(lambda body: [choice(reasoning="be"), choice(finish="length")])
    async with Running(endpoint.engine()) as engine:
        parsed = engine.parse(text(await read(engine)))
    assert (parsed.reasoning, parsed.content) == ("be", "")


async def test_tool_calls_come_back_as_text_that_parses() -> None:
    def part(index: int, **function: str) -> dict[str, Any]:
        return {"index": index, "function": function}

    endpoint = Endpoint(
        lambda body: [choice(content="I ask."), choice(tool_calls=[part(0, name="f", arguments='{"x"')]),
                      choice(tool_calls=[part(0, arguments=": 1}"), part(1, name="g", arguments="oops")]),
                      choice(finish="tool_calls")]
    )  # fmt: skip
    async with Running(endpoint.engine()) as engine:
        chunks = await read(engine)
        parsed = engine.parse(text(chunks))
    assert chunks[-1].finish_reason == "tool_calls"
    assert [(call.name, call.arguments) for call in parsed.tool_calls] == [("f", '{"x": 1}'), ("g", "oops")]
    assert len({call.id for call in parsed.tool_calls}) == 2
    assert parsed.content == "I ask."


@pytest.mark.parametrize(
    "bad", ["<tool_call>{oops}</tool_call>", "<tool_call>{", '<tool_call>{"name": "f"}</tool_call>']
)
def test_a_malformed_tool_call_stays_text(bad: str) -> None:
    parsed = Endpoint().engine().parse(bad)
    assert (parsed.content, parsed.tool_calls) == (bad, ())


def test_a_prefill_that_opens_thinking_is_seen_by_parse() -> None:
    engine = Endpoint().engine()
    prompt = engine.render_chat(HELLO, prefill="<think>\nWell")
    assert engine.parse(", so.</think>42", prompt=prompt).reasoning == ", so."


async def test_logprobs_of_both_kinds() -> None:
    chat = {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.0}]}]}
    plain = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"b": -1.0}]}

    def script(body: dict[str, Any]) -> Any:
        kind = (
            {"delta": {"content": "a"}, "logprobs": chat}
            if "messages" in body
            else {"text": "a", "logprobs": plain}
        )
        return [{"choices": [{"index": 0, "finish_reason": "stop", **kind}]}]

    endpoint = Endpoint(script)
    async with Running(endpoint.engine()) as engine:
        found = [(await read(engine, prompt=prompt, logprobs=1))[0].logprobs[0] for prompt in (None, "plain")]
    for logprob in found:
        assert (logprob.token, logprob.logprob, logprob.top) == ("a", -0.5, ((-1, "b", -1.0),))
    assert (endpoint.bodies[0]["logprobs"], endpoint.bodies[0]["top_logprobs"]) == (True, 1)
    assert endpoint.bodies[1]["logprobs"] == 1


async def test_choose_reads_the_alternatives_of_one_token() -> None:
    top = [{"token": "yes", "logprob": math.log(0.6)}, {"token": " no", "logprob": math.log(0.2)}]
    place = {"content": [{"token": "yes", "logprob": math.log(0.6), "top_logprobs": top}]}
    chunk = {
        "choices": [{"index": 0, "delta": {"content": "yes"}, "logprobs": place, "finish_reason": "length"}]
    }
    endpoint = Endpoint(lambda body: [chunk, usage(5, 1)])
    async with Running(endpoint.engine()) as engine:
        chosen = await engine.choose(ChoiceRequest("c", engine.render_chat(HELLO), ("yes", "no")))
    assert chosen.probabilities == pytest.approx((0.75, 0.25))
    assert chosen.mass == pytest.approx(0.8)
    assert (chosen.completion_tokens, chosen.prompt_tokens) == (1, 5)
    assert endpoint.bodies[0]["max_tokens"] == 1


def test_a_token_counts_for_the_only_option_it_begins() -> None:
    top = {"im": math.log(0.5), "s": math.log(0.25), "": math.log(0.1), "su": math.log(0.1)}
    assert option_shares(("sure", "so", "impossible"), top) == pytest.approx([0.1, 0.0, 0.5])


async def test_choose_without_logprobs_is_refused() -> None:
    endpoint = Endpoint(lambda body: [choice(content="yes", finish="length")])
    async with Running(endpoint.engine(logprobs=-1)) as engine:
        assert not engine.caps.choose
        with pytest.raises(CapabilityMissing):
            await engine.choose(ChoiceRequest("c", "p", ("yes", "no")))
    async with Running(endpoint.engine()) as engine:
        with pytest.raises(CapabilityMissing, match="sent none"):
            await engine.choose(ChoiceRequest("c", "p", ("yes", "no")))


ERRORS = [
    (400, {"message": "too long", "code": "context_length_exceeded"}, ContextLengthExceeded),
    (400, {"message": "This model's maximum context length is 10 tokens"}, ContextLengthExceeded),
    (400, {"message": "bad top_p", "param": "top_p", "code": "range"}, RequestError),
    (422, {"message": "bad"}, RequestError),
    (404, {"message": "no model"}, UnknownModel),
    (401, {"message": "wrong key"}, EngineError),
    (429, {"message": "slow down"}, EngineBusy),
    (503, {"message": "loading"}, EngineBusy),
    (500, {"message": "oops"}, EngineError),
]


@pytest.mark.parametrize(("status", "error", "kind"), ERRORS)
async def test_refusals_are_typed(status: int, error: Event, kind: type[Exception]) -> None:
    endpoint = Endpoint(lambda body: (status, error))
    async with Running(endpoint.engine()) as engine:
        with pytest.raises(kind, match=error["message"]) as caught:
            await read(engine)
        assert (await engine.health()).running == 0
    assert type(caught.value) is kind
    if kind is RequestError:
        assert caught.value.param == error.get("param")


async def test_the_sdk_retries() -> None:
    answers = iter([(500, {"message": "once"}), [choice(content="x", finish="stop")]])
    endpoint = Endpoint(lambda body: next(answers))
    async with Running(endpoint.engine(max_retries=1)) as engine:
        assert text(await read(engine)) == "x"


async def test_an_unreachable_endpoint_is_dead() -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(refuse))
    engine = OpenAIEngine(OpenAIConfig(base_url="http://endpoint/v1", max_retries=0), http_client=client)
    with pytest.raises(EngineDead, match="refused"):
        await engine.start()
    health = await engine.health()
    assert (health.ready, health.live) == (False, False)
    await engine.close()


async def test_a_timeout_is_an_engine_error() -> None:
    def late(body: dict[str, Any]) -> Any:
        raise httpx2.ReadTimeout("late")

    async with Running(Endpoint(late).engine()) as engine:
        with pytest.raises(EngineError, match="in time"):
            await read(engine)


async def test_an_error_inside_the_stream_is_an_engine_error() -> None:
    endpoint = Endpoint(lambda body: [choice(content="a"), {"error": {"message": "out of memory"}}])
    async with Running(endpoint.engine()) as engine:
        with pytest.raises(EngineError, match="out of memory"):
            await read(engine)


async def test_a_connection_lost_in_the_middle_is_dead() -> None:
    async def torn() -> AsyncIterator[Event]:
        yield choice(content="a")
        raise httpx2.ReadError("torn")

    async with Running(Endpoint(lambda body: torn()).engine()) as engine:
        with pytest.raises(EngineDead, match="torn"):
            await read(engine)


async def test_a_stream_that_ends_early_is_an_engine_error() -> None:
    async with Running(Endpoint(lambda body: [choice(content="a")]).engine()) as engine:
        with pytest.raises(EngineError, match="before the answer was finished"):
            await read(engine)


class Endless:
    """A script that sends `a` for ever, and says when somebody reads."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def events(self) -> AsyncIterator[Event]:
        yield choice(0, content="a")
        yield choice(1, content="b")
        self.reached.set()
        await asyncio.Event().wait()


async def test_abort_closes_the_connection_and_ends_every_sample() -> None:
    endless = Endless()
    endpoint = Endpoint(lambda body: endless.events())
    async with Running(endpoint.engine()) as engine:
        reading = asyncio.create_task(read(engine, n=2))
        await endless.reached.wait()
        assert ((await engine.health()).running, endpoint.open) == (2, 1)
        await engine.abort("unknown")
        await engine.abort("r")
        chunks = await reading
        assert ((await engine.health()).running, endpoint.open) == (0, 0)
    assert (text(chunks, 0), text(chunks, 1), tokens(chunks)) == ("a", "b", 2)
    assert [(c.index, c.finish_reason) for c in chunks[-2:]] == [(0, "abort"), (1, "abort")]


async def test_a_reader_that_leaves_closes_the_connection() -> None:
    endless = Endless()
    endpoint = Endpoint(lambda body: endless.events())
    async with Running(endpoint.engine()) as engine:
        stream = engine.generate(GenerateRequest("r", engine.render_chat(HELLO), n=2))
        await anext(stream)
        await stream.aclose()
        assert ((await engine.health()).running, endpoint.open) == (0, 0)


async def test_close_ends_what_runs() -> None:
    endless = Endless()
    endpoint = Endpoint(lambda body: endless.events())
    engine = endpoint.engine()
    await engine.start()
    reading = asyncio.create_task(read(engine, n=2))
    await endless.reached.wait()
    await engine.close()
    await engine.close()
    assert [c.finish_reason for c in await reading][-2:] == ["abort", "abort"]
    with pytest.raises(EngineDead):
        await read(engine)


async def test_an_id_is_taken_while_it_runs() -> None:
    endless = Endless()
    async with Running(Endpoint(lambda body: endless.events()).engine()) as engine:
        reading = asyncio.create_task(read(engine, n=2))
        await endless.reached.wait()
        with pytest.raises(RequestError):
            await read(engine)
        await engine.abort("r")
        await reading


VLLM = ({"id": "m", "object": "model", "owned_by": "vllm", "max_model_len": 4096},)


async def test_vllms_dialect_is_found_and_continues_a_begun_answer() -> None:
    endpoint = Endpoint(lambda body: [choice(content="x", finish="stop")], models=VLLM)
    async with Running(endpoint.engine()) as engine:
        assert engine.info.context == 4096
        assert not engine.caps.continuation
        prompt = engine.render_chat([*HELLO, Message("assistant", "hm", reasoning="r"), *HELLO], think=True)
        await read(engine, prompt=prompt + "So far", top_k=3, min_p=0.1, include_stop=True)
    sent = endpoint.bodies[0]
    assert sent["messages"][1]["reasoning"] == "r"
    assert sent["messages"][-1] == {"role": "assistant", "content": "So far"}
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)
    assert (sent["top_k"], sent["min_p"], sent["include_stop_str_in_output"]) == (3, 0.1, True)
    assert sent["chat_template_kwargs"] == {"enable_thinking": True}


async def test_vllms_continuous_usage_counts_each_sample() -> None:
    def event(index: int, made: int, **rest: Any) -> Event:
        return {**choice(index, **rest), "usage": {"prompt_tokens": 6, "completion_tokens": made}}

    script = [event(0, 2, content="ab"), event(1, 1, content="c"), event(0, 3, finish="stop"),
              event(1, 4, content="def", finish="length"), usage(6, 7)]  # fmt: skip
    async with Running(Endpoint(lambda body: script, models=VLLM).engine()) as engine:
        chunks = await read(engine, n=2)
    assert [(c.index, c.token_count, c.prompt_tokens) for c in chunks] == [
        (0, 2, 6),
        (1, 1, 0),
        (0, 1, 0),
        (1, 3, 0),
    ]


async def test_a_local_tokenizer_gives_token_ids_and_continuation(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    made = {"choices": [{"index": 0, "text": "ab", "token_ids": [64, 65], "finish_reason": "length"}]}
    endpoint = Endpoint(lambda body: [made], models=VLLM)
    async with Running(endpoint.engine(tokenizer=str(tmp_path))) as engine:
        assert engine.caps.token_ids
        assert engine.caps.continuation
        prompt = engine.render_chat(HELLO)
        assert prompt.startswith("<|im_start|>user\nhello")
        ids = tuple(engine.tokenize(prompt))
        assert engine.detokenize(ids) == prompt
        chunks = await read(engine, prompt=ids)
        assert engine.parse("<think>a</think>b").reasoning == "a"
    assert (chunks[0].token_ids, tokens(chunks)) == ((64, 65), 2)
    assert endpoint.bodies[0]["prompt"] == list(ids)


@pytest.mark.parametrize(
    "sampling",
    [{"top_k": 5}, {"min_p": 0.1}, {"repetition_penalty": 1.1}, {"ignore_eos": True}, {"stop_token_ids": (1,)},
     {"include_stop": True}, {"draft": "sam"}, {"structured": Structured(regex="a+")},
     {"structured": Structured(choice=("a", "b"))}],
)  # fmt: skip
async def test_what_openais_api_lacks_is_refused_before_it_is_sent(sampling: dict[str, Any]) -> None:
    endpoint = Endpoint()
    async with Running(endpoint.engine()) as engine:
        with pytest.raises(CapabilityMissing):
            await read(engine, **sampling)
    assert endpoint.bodies == []


async def test_other_missing_capabilities_are_named() -> None:
    async with Running(Endpoint().engine()) as engine:
        assert not engine.caps.exact_budget
        with pytest.raises(CapabilityMissing, match="prefill"):
            await read(engine, prompt=engine.render_chat(HELLO, prefill="So"))
        with pytest.raises(CapabilityMissing, match="token ids"):
            await read(engine, prompt=(1, 2))
        assert not engine.caps.token_ids
        with pytest.raises(CapabilityMissing):
            await engine.score(ScoreRequest("s", ("x",)))
        with pytest.raises(CapabilityMissing):
            await engine.load_adapter("a", "/nowhere")
        with pytest.raises(UnknownModel):
            await engine.unload_adapter("a")
        assert engine.adapters() == ()


@pytest.mark.parametrize("text", ["", "a", "abcd", "naïve 数学 😀\0"])
def test_estimated_tokens_turn_back_into_their_text(text: str) -> None:
    engine = Endpoint().engine()
    assert engine.detokenize(engine.tokenize(text)) == text
    assert len(engine.tokenize("x" * 30)) == 10


@pytest.mark.parametrize(("fields", "n"), [({"max_tokens": 0}, 1), ({}, 0)])
async def test_nothing_to_do_is_refused_before_it_is_sent(fields: dict[str, Any], n: int) -> None:
    endpoint = Endpoint()
    async with Running(endpoint.engine()) as engine:
        with pytest.raises(RequestError):
            await read(engine, n=n, **fields)
    assert endpoint.bodies == []


async def test_the_model_must_be_listed() -> None:
    engine = Endpoint().engine(model="other")
    with pytest.raises(UnknownModel, match="it has: m"):
        await engine.start()
    await engine.close()


async def test_keys_stay_with_their_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    endpoint = Endpoint()
    async with Running(endpoint.engine()):
        pass
    assert endpoint.keys == {"Bearer none"}
    given = Endpoint()
    async with Running(given.engine(api_key=SecretStr("mine"))):
        pass
    assert given.keys == {"Bearer mine"}


@pytest.mark.parametrize("bad", [{"dialect": "cohere"}, {"timeout": 0}, {"context": 0}, {"colour": 1}])
def test_a_wrong_configuration_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OpenAIConfig.model_validate({"base_url": "http://x/v1", **bad})
