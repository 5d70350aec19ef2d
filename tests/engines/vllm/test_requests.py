"""What the vLLM engine is asked beside plain text, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from reason_engine.engines.vllm.engine import VllmEngine
from reason_engine.errors import CapabilityMissing, ContextLengthExceeded, RequestError, UnknownModel
from reason_engine.types import ChoiceRequest, Sampling, ScoreRequest, Structured
from tests.engines.vllm.tiny import GREEDY, MARKS, idle, ids, run, text

pytestmark = MARKS


async def test_the_context_is_a_wall(engine: VllmEngine) -> None:
    with pytest.raises(ContextLengthExceeded, match="2048"):
        await run(engine, "x" * 2048)
    chunks = await run(engine, "x" * 2045, sampling=replace(GREEDY, max_tokens=100))
    assert (len(ids(chunks)), chunks[-1].finish_reason) == (3, "length")


@pytest.mark.parametrize(
    ("constraint", "fits"),
    [
        (Structured(regex="[0-9]{4}"), str.isdigit),
        (Structured(choice=("alpha", "beta")), lambda made: made in ("alpha", "beta")),
        (Structured(json_schema='{"type": "boolean"}'), lambda made: made in ("true", "false")),
    ],
)
async def test_structured_output(engine: VllmEngine, constraint: Structured, fits: Callable[[str], bool]) -> None:
    made = text(await run(engine, sampling=Sampling(temperature=1.0, max_tokens=30, structured=constraint)))
    assert fits(made), made


WRONG: list[tuple[dict[str, Any], str | None]] = [
    ({"temperature": -1.0}, "temperature"),
    ({"top_p": 0.0}, "top_p"),
    ({"top_k": -5}, None),
    ({"min_p": 2.0}, None),
    ({"repetition_penalty": 0.0}, None),
    ({"presence_penalty": 9.0}, None),
    ({"logprobs": 99}, "logprobs"),
    ({"logit_bias": ((99999, 1.0),)}, None),
    ({"max_tokens": 0}, "max_tokens"),
    ({"stop": ("",)}, None),
    ({"structured": Structured(json_schema="{nonsense")}, None),
    ({"structured": Structured(regex="(((")}, None),
]


@pytest.mark.parametrize(("fields", "param"), WRONG)
async def test_a_wrong_request_is_refused_and_harms_nobody(
    engine: VllmEngine, fields: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(RequestError) as caught:
        await run(engine, sampling=Sampling(**fields))
    if param:
        assert caught.value.param == param
    assert "\n" not in str(caught.value)
    assert await idle(engine)
    assert len(ids(await run(engine))) == 12


@pytest.mark.parametrize("prompt", ["", (), (5, 99999), (-1,)])
async def test_a_wrong_prompt_is_refused(engine: VllmEngine, prompt: str | tuple[int, ...]) -> None:
    with pytest.raises(RequestError):
        await run(engine, prompt)
    with pytest.raises(RequestError):
        await run(engine, n=0)


async def test_what_was_not_loaded_is_missing(engine: VllmEngine) -> None:
    with pytest.raises(CapabilityMissing, match="at start"):
        await run(engine, sampling=Sampling(draft="sam"))
    with pytest.raises(CapabilityMissing):
        await engine.score(ScoreRequest("s", ("x",)))
    with pytest.raises(CapabilityMissing, match="enable_lora"):
        await engine.load_adapter("a", "/nowhere")
    with pytest.raises(UnknownModel):
        await run(engine, adapter="a")
    assert ids(await run(engine, sampling=replace(GREEDY, draft="none")))


async def test_choose_is_the_models_probability_of_one_token(engine: VllmEngine) -> None:
    place = (await run(engine, sampling=replace(GREEDY, max_tokens=1, logprobs=8)))[0].logprobs[0]
    shown = [(token, logprob) for _, token, logprob in place.top if "!" <= token <= "~"]
    shown = shown[:2]
    chosen = await engine.choose(ChoiceRequest("c", "hello", tuple(token for token, _ in shown)))
    shares = [math.exp(logprob) for _, logprob in shown]
    assert chosen.mass == pytest.approx(sum(shares), rel=1e-3)
    assert chosen.probabilities == pytest.approx([share / sum(shares) for share in shares], rel=1e-3)
    assert (chosen.completion_tokens, chosen.prompt_tokens) == (1, 5)


async def test_choose_multiplies_the_tokens_of_an_option(engine: VllmEngine) -> None:
    before = (await engine.health()).generated_tokens
    whole = await engine.choose(ChoiceRequest("c", "hello", ("ab", "ac", "d")))
    assert whole.completion_tokens == 2 == (await engine.health()).generated_tokens - before
    first = await engine.choose(ChoiceRequest("c", "hello", ("a", "d")))
    second = await engine.choose(ChoiceRequest("c", "helloa", ("b", "c")))
    a, d = (share * first.mass for share in first.probabilities)
    b, c = (share * second.mass for share in second.probabilities)
    assert sum(whole.probabilities) == pytest.approx(1)
    absolute = [share * whole.mass for share in whole.probabilities]
    assert absolute == pytest.approx([a * b, a * c, d], rel=1e-3)


@pytest.mark.parametrize("options", [(), ("a", "a"), ("", "a")])
async def test_choose_refuses_options_it_cannot_tell_apart(engine: VllmEngine, options: tuple[str, ...]) -> None:
    with pytest.raises(RequestError):
        await engine.choose(ChoiceRequest("c", "hello", options))
