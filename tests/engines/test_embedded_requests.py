"""What the embedded engine is asked beside plain text: choices, structure, and what it refuses."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from reason_engine.engines.embedded.front import Embedded
from reason_engine.errors import CapabilityMissing, RequestError
from reason_engine.types import ChoiceRequest, ScoreRequest, Structured
from tests.engines.contract import GREEDY, WARM, read, request

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_choose_reads_probabilities_that_generation_confirms(engine: Embedded) -> None:
    prompt = "choose between"
    options = ("a", "bc", "bd")
    choice = await engine.choose(ChoiceRequest("x", prompt, options))
    expected: list[float] = []
    for option in options:
        regex = replace(GREEDY, structured=Structured(choice=(option,)), logprobs=0)
        [sample] = await read(engine, request(prompt, regex))
        assert sample.text == option
        expected.append(sum(p.logprob for p in sample.logprobs[: len(option)]))
    import math

    total = sum(map(math.exp, expected))
    assert choice.probabilities == pytest.approx([math.exp(e) / total for e in expected], rel=1e-3)
    assert choice.mass == pytest.approx(total, rel=1e-3)
    assert choice.completion_tokens == 0


async def test_many_choices_at_once_are_the_same_as_one_by_one(engine: Embedded) -> None:
    asked = [ChoiceRequest("x", f"can {i} make 24?", ("yes", "no")) for i in range(12)]
    alone = [(await engine.choose(one)).probabilities for one in asked]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(engine.choose(one)) for one in asked]
    for task, expected in zip(tasks, alone, strict=True):
        assert task.result().probabilities == pytest.approx(expected, rel=1e-4)
        assert task.result().cached_tokens > 0


async def test_a_prompt_of_token_ids_is_not_tokenised_again(engine: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, options = "given as ids", ("a", "bc")
    by_text = await engine.choose(ChoiceRequest("x", prompt, options))
    [said] = await read(engine, request(prompt))
    ids = tuple(engine.tokenize(prompt))
    monkeypatch.setattr(engine._format, "tokenize", None)
    by_ids = await engine.choose(ChoiceRequest("x", ids, options))
    [again] = await read(engine, request(ids))
    assert by_ids.probabilities == pytest.approx(by_text.probabilities, rel=1e-4)
    assert by_ids.prompt_tokens == by_text.prompt_tokens
    assert (again.text, again.ids) == (said.text, said.ids)


@pytest.mark.parametrize("options", [(), ("a", "")])
async def test_choosing_from_nothing_is_refused(engine: Embedded, options: tuple[str, ...]) -> None:
    with pytest.raises(RequestError) as caught:
        await engine.choose(ChoiceRequest("x", "p", options))
    assert caught.value.param == "options"


@pytest.mark.parametrize(
    "structured",
    [
        Structured(),
        Structured(json_object=True, regex="a"),
        Structured(json_schema="{"),
        Structured(json_schema="[]"),
        Structured(json_schema='{"type": "nonsense"}'),
        Structured(json_schema='{"a":' * 70 + "1" + "}" * 70),
        Structured(json_schema='{"description": "%s"}' % ("x" * 70_000)),
        Structured(json_schema="[" * 5000 + "]" * 5000),
        Structured(regex="("),
        Structured(regex="a" * 70_000),
    ],
    ids=lambda s: repr(s)[:40],
)
async def test_bad_constraints_are_refused_before_anything_runs(engine: Embedded, structured: Structured) -> None:
    before = (await engine.health()).generated_tokens
    with pytest.raises(RequestError) as caught:
        await read(engine, request("p", replace(WARM, structured=structured)))
    assert caught.value.param == "response_format"
    assert (await engine.health()).generated_tokens == before


async def test_json_is_valid_and_a_regex_is_matched(engine: Embedded) -> None:
    schema = {
        "type": "object",
        "properties": {
            "size": {"enum": [1, 20]},
            "kind": {"enum": ["a", "b"]},
            "deep": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        },
        "required": ["size", "kind", "deep"],
        "additionalProperties": False,
    }  # fmt: skip
    warm = replace(WARM, max_tokens=100, ignore_eos=False)
    shaped = replace(warm, structured=Structured(json_schema=json.dumps(schema)))
    for sample in await read(engine, request("p", shaped, n=4)):
        made = json.loads(sample.text)
        assert made["size"] in (1, 20)
        assert sample.finish == "stop"
    [sample] = await read(engine, request("p", replace(warm, structured=Structured(regex="[0-9]{3}-[a-f]+z"))))
    import re

    assert re.fullmatch("[0-9]{3}-[a-f]+z", sample.text)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"top_k": -5}, "top_k"),
        ({"presence_penalty": 3.0}, "presence_penalty"),
        ({"frequency_penalty": float("inf")}, "frequency_penalty"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"logprobs": 21}, "top_logprobs"),
        ({"stop": ("",)}, "stop"),
        ({"logit_bias": ((10_000, 1.0),)}, "logit_bias"),
        ({"logit_bias": ((1, float("nan")),)}, "logit_bias"),
    ],
    ids=str,
)
async def test_bad_sampling_names_the_field(engine: Embedded, change: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        await read(engine, request("p", replace(GREEDY, **change)))
    assert caught.value.param == param


@pytest.mark.parametrize("prompt", ["", (), (1, 9999), (-1,)])
async def test_bad_prompts_are_refused(engine: Embedded, prompt: Any) -> None:
    with pytest.raises(RequestError) as caught:
        await read(engine, request(prompt))
    assert caught.value.param == "prompt"


async def test_scoring_without_a_reward_model_is_a_missing_capability(engine: Embedded) -> None:
    with pytest.raises(CapabilityMissing):
        await engine.score(ScoreRequest("x", ("a",)))
