"""What endpoints can and cannot do: vLLM's dialect, a local tokenizer, missing capabilities, configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from reason_engine.engines.chat import Parsers
from reason_engine.engines.openai.config import OpenAIConfig
from reason_engine.engines.openai.engine import OpenAIEngine
from reason_engine.errors import CapabilityMissing, RequestError, UnknownModel
from reason_engine.types import Message, ScoreRequest, Structured
from tests.engines.asking import HELLO, Running, read, tokens
from tests.engines.endpoint import Endpoint, Event, choice, usage
from tests.models import write_tokenizer

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
    assert [(c.index, c.token_count, c.prompt_tokens) for c in chunks] == [(0, 2, 6), (1, 1, 0), (0, 1, 0), (1, 3, 0)]


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
     {"draft": "sam"}, {"structured": Structured(regex="a+")},
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


def test_a_named_parser_gives_the_marks_of_an_endpoint_that_parses_nothing() -> None:
    made = OpenAIEngine(OpenAIConfig(base_url="http://endpoint/v1"), parsers=Parsers("mistral"))
    assert (made.info.think_start, made.info.think_end) == ("[THINK]", "[/THINK]")
    parsed = made.parse("[THINK]so[/THINK]42", prompt=made.render_chat(HELLO))
    assert (parsed.reasoning, parsed.content) == ("so", "42")
