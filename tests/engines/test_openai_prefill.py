"""Begun answers in front of a remote endpoint: which way of taking them it has, and what is then sent."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from reason_engine.engines.openai.config import OpenAIConfig
from reason_engine.engines.openai.engine import OpenAIEngine
from reason_engine.engines.openai.wire.prefill import BEGUN, PROBE_TOKENS, BegunTurn
from reason_engine.errors import CapabilityMissing
from reason_engine.types import ChoiceRequest
from tests.engines.asking import HELLO, Running, read, text, tokens
from tests.engines.endpoint import Endpoint, choice, usage

NEW_TURN = "The weather in Lisbon is wonderful today."


def continues(way: str) -> Endpoint:
    """An endpoint that goes on with a begun answer in that way, refuses unknown fields of others, and says `x` else."""

    def script(body: dict[str, Any]) -> Any:
        last = body["messages"][-1]
        asked = "flags" if "continue_final_message" in body else "prefix" if "prefix" in last else "turn"
        if last["role"] != "assistant":
            said = "x"
        elif asked == way:
            said = "ful today." if last["content"] == BEGUN else "72}"
        elif asked == "flags":
            return 400, {"message": "unknown field: continue_final_message"}
        else:
            said = NEW_TURN
        return [choice(content=said), choice(finish="stop"), usage(4, 2)]

    return Endpoint(script)


@pytest.mark.parametrize(("way", "questions"), [("turn", 1), ("prefix", 2), ("flags", 3), ("none", 3)])
async def test_the_way_is_found_by_asking(way: str, questions: int) -> None:
    endpoint = continues(way)
    async with Running(endpoint.engine(prefill="auto")) as engine:
        assert engine.caps.prefill == (way != "none")
        assert len(endpoint.bodies) == questions
        prompt = engine.render_chat(HELLO)
        assert text(await read(engine, prompt=prompt)) == "x"
        if way == "none":
            with pytest.raises(CapabilityMissing, match="upstream_prefill"):
                await read(engine, prompt=prompt + r"So \boxed{")
        else:
            assert text(await read(engine, prompt=prompt + r"So \boxed{")) == "72}"
    assert {body["max_tokens"] for body in endpoint.bodies[:questions]} == {PROBE_TOKENS}
    assert {body["temperature"] for body in endpoint.bodies[:questions]} == {0.0}


async def test_an_endpoint_that_refuses_begun_answers_is_not_broken_by_the_question() -> None:
    endpoint = Endpoint(lambda body: (400, {"message": "the last turn must be the user's"}))
    async with Running(endpoint.engine(prefill="auto")) as engine:
        assert not engine.caps.prefill


@pytest.mark.parametrize(("config", "has"), [({"prefill": "turn"}, True), ({"prefill": "no"}, False)])
async def test_what_is_configured_is_not_asked_for(config: dict[str, Any], has: bool) -> None:
    endpoint = continues("turn")
    async with Running(endpoint.engine(**config)) as engine:
        assert engine.caps.prefill == has
    assert endpoint.bodies == []


async def test_openais_own_host_is_known_to_have_none() -> None:
    endpoint = continues("turn")
    config = OpenAIConfig(base_url="https://api.openai.com/v1")
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(endpoint.handle))
    async with Running(OpenAIEngine(config, http_client=client)) as engine:
        assert not engine.caps.prefill
    assert endpoint.bodies == []


@pytest.mark.parametrize(
    ("way", "turn", "fields"),
    [
        ("turn", {}, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("prefix", {"prefix": True}, {}),
        ("flags", {}, {"continue_final_message": True, "add_generation_prompt": False}),
    ],
)
async def test_each_way_has_its_fields(way: str, turn: dict[str, Any], fields: dict[str, Any]) -> None:
    endpoint = continues(way)
    async with Running(endpoint.engine(prefill=way)) as engine:
        await read(engine, prompt=engine.render_chat(HELLO) + "So")
    (sent,) = endpoint.bodies
    assert sent["messages"][-1] == {"role": "assistant", "content": "So", **turn}
    assert {name: sent.get(name) for name in fields} == fields
    others = {"continue_final_message", "add_generation_prompt", "chat_template_kwargs"} - set(fields)
    assert not others & set(sent)


@pytest.mark.parametrize(
    ("begun", "sent"),
    [
        ("<think>six times</think>It is", "six times\n\nIt is"),
        ("<think>\nsix\n\ntimes\n</think>\n\nIt is", "six\n\ntimes\n\nIt is"),
        ("six times</think>It is", "six times\n\nIt is"),  # the prompt opened the thought
        ("<think></think>It is", "It is"),
        ("<think>\nWell", "<think>\nWell"),  # still thinking: it is to go on with that
        ("It is", "It is"),
        ("", ""),
    ],
)
def test_a_finished_thought_goes_as_plain_text(begun: str, sent: str) -> None:
    assert BegunTurn("turn", "<think>", "</think>").unmarked(begun) == sent


async def test_a_path_that_thought_is_continued_without_its_marks() -> None:
    """What a forced answer does: the path's whole text, the end of the thought, the opening of an answer."""
    endpoint = continues("turn")
    async with Running(endpoint.engine(prefill="auto")) as engine:
        path = "<think>6 * 12 = 72, so"
        forced = engine.render_chat(HELLO) + path + "\n</think>\n\nThe final answer is \\boxed{"
        assert text(await read(engine, prompt=forced, stop=("}",))) == "72}"
    assert endpoint.bodies[-1]["messages"][-1]["content"] == "6 * 12 = 72, so\n\nThe final answer is \\boxed{"


@pytest.mark.parametrize(
    ("pieces", "said", "reason"),
    [
        (["7", "2", "}", "$.", " Done"], "72}", ("stop", "}")),
        (["72} and"], "72}", ("stop", "}")),
        (["72"], "72", ("stop", None)),
        (["a<", "en", "d>b"], "a<end>", ("stop", "<end>")),
        (["a<", "en"], "a<en", ("stop", None)),
    ],
)
async def test_a_stop_that_is_to_stay_ends_the_text_here(
    pieces: list[str], said: str, reason: tuple[str, str | None]
) -> None:
    events = [*(choice(content=piece) for piece in pieces), choice(finish="stop"), usage(4, len(pieces))]
    endpoint = Endpoint(lambda body: events)
    async with Running(endpoint.engine()) as engine:
        chunks = await read(engine, stop=("}", "<end>"), include_stop=True)
    assert text(chunks) == said
    assert (chunks[-1].finish_reason, chunks[-1].stop_reason) == reason
    assert tokens(chunks) == len(pieces)  # also those behind it, which are paid for
    assert "stop" not in endpoint.bodies[0]


async def test_samples_are_ended_apart() -> None:
    events = [choice(0, content="a}b"), choice(1, content="c"), choice(1, finish="length"), choice(0, finish="length")]
    async with Running(Endpoint(lambda body: events).engine()) as engine:
        chunks = await read(engine, n=2, stop=("}",), include_stop=True)
    assert (text(chunks, 0), text(chunks, 1)) == ("a}", "c")
    assert {c.index: c.finish_reason for c in chunks if c.finish_reason} == {0: "stop", 1: "length"}


async def test_a_model_is_known_to_think_once_it_was_seen_to() -> None:
    endpoint = Endpoint(lambda body: [choice(reasoning="be"), choice(content="4"), choice(finish="stop")])
    async with Running(endpoint.engine()) as engine:
        assert not engine.info.thinks
        await read(engine)
        assert (engine.info.thinks, engine.info.think_start, engine.info.think_end) == (True, "<think>", "</think>")


async def test_the_first_word_of_a_thought_is_no_choice() -> None:
    thought = {"choices": [{"index": 0, "delta": {"reasoning": "We"}, "finish_reason": "length"}]}
    async with Running(Endpoint(lambda body: [thought, usage(4, 1)]).engine()) as engine:
        with pytest.raises(CapabilityMissing, match="thinks before it answers"):
            await engine.choose(ChoiceRequest("c", engine.render_chat(HELLO), ("yes", "no")))


@pytest.mark.parametrize("bad", ["yes", "", None, 1])
def test_an_unknown_way_is_refused(bad: object) -> None:
    with pytest.raises(ValidationError):
        OpenAIConfig.model_validate({"base_url": "http://x/v1", "prefill": bad})
