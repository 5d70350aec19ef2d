"""The remote engine against a scripted endpoint that is spoken to through the SDK's own client."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from reason_engine.engines.openai.wire.choice import option_shares
from reason_engine.errors import CapabilityMissing
from reason_engine.types import ChoiceRequest, Message, Structured, ToolCall
from tests.engines.asking import HELLO, Running, read, text, tokens
from tests.engines.endpoint import Endpoint, choice, usage
from tests.models import write_tokenizer


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
    assert (sent["reasoning_effort"], sent["user"], sent["stream_options"]) == ("none", "u", {"include_usage": True})
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
    assert {chunk.index: chunk.finish_reason for chunk in chunks if chunk.finish_reason} == {0: "length", 1: "stop"}
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
        kind = {"delta": {"content": "a"}, "logprobs": chat} if "messages" in body else {"text": "a", "logprobs": plain}
        return [{"choices": [{"index": 0, "finish_reason": "stop", **kind}]}]

    endpoint = Endpoint(script)
    async with Running(endpoint.engine()) as engine:
        found = [(await read(engine, prompt=prompt, logprobs=1))[0].logprobs[0] for prompt in (None, "plain")]
    for logprob in found:
        assert (logprob.token, logprob.logprob, logprob.top) == ("a", -0.5, ((-1, "b", -1.0),))
    assert (endpoint.bodies[0]["logprobs"], endpoint.bodies[0]["top_logprobs"]) == (True, 1)
    assert endpoint.bodies[1]["logprobs"] == 1


async def test_choose_reads_the_alternatives_of_one_token(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    top = {"yes": math.log(0.6), " no": math.log(0.2)}
    place = {"tokens": ["yes"], "token_logprobs": [math.log(0.6)], "top_logprobs": [top]}
    chunk = {"choices": [{"index": 0, "text": "yes", "logprobs": place, "finish_reason": "length"}]}
    endpoint = Endpoint(lambda body: [chunk, usage(5, 1)])
    async with Running(endpoint.engine(tokenizer=str(tmp_path))) as engine:
        assert engine.caps.choose
        chosen = await engine.choose(ChoiceRequest("c", engine.render_chat(HELLO), ("yes", "no")))
    assert chosen.probabilities == pytest.approx((0.75, 0.25))
    assert chosen.mass == pytest.approx(0.8)
    assert (chosen.completion_tokens, chosen.prompt_tokens) == (1, 5)
    assert endpoint.bodies[0]["max_tokens"] == 1


def test_a_token_counts_for_the_only_option_it_begins() -> None:
    top = {"im": math.log(0.5), "s": math.log(0.25), "": math.log(0.1), "su": math.log(0.1)}
    assert option_shares(("sure", "so", "impossible"), top) == pytest.approx([0.1, 0.0, 0.5])


async def test_choose_without_logprobs_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    endpoint = Endpoint(lambda body: [choice(content="yes", finish="length")])
    async with Running(endpoint.engine(logprobs=-1, tokenizer=str(tmp_path))) as engine:
        assert not engine.caps.choose
        with pytest.raises(CapabilityMissing, match="reports no logprobs"):
            await engine.choose(ChoiceRequest("c", "p", ("yes", "no")))
    async with Running(endpoint.engine(tokenizer=str(tmp_path))) as engine:
        with pytest.raises(CapabilityMissing, match="sent none"):
            await engine.choose(ChoiceRequest("c", "p", ("yes", "no")))
