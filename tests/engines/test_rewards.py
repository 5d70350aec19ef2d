"""Reward models: heads and checkpoints on the embedded engine against transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.rewards.folders import bundled_heads, read_reward
from reason_engine.errors import CapabilityMissing, ModelLoadError, RequestError, UnknownModel
from reason_engine.types import Message, ScoreRequest
from tests.engines.contract import prompt_of, read, request
from tests.models import TINY
from tests.rewards import write_head, write_reward

pytestmark = pytest.mark.asyncio(loop_scope="module")
TURNS = (Message("user", "2 + 3?"),)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_qwen3: Path) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("rewards")
    model = home / "model"
    shutil.copytree(tiny_qwen3, model)
    write_head(model / "heads" / "own", TINY["hidden_size"])
    return {
        "model": model,
        "outcome": write_reward(home / "outcome"),
        "process": write_reward(home / "process", process=True),
        "steps": write_head(home / "steps", TINY["hidden_size"], kind="process", wide=8),
    }


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(folders: dict[str, Path]) -> AsyncIterator[Embedded]:
    given = {name: str(folders[name]) for name in ("outcome", "process", "steps")}
    made = Embedded(folders["model"], inline=True, rewards=given)
    await made.start()
    yield made
    await made.close()


def ask(*inputs: str, **fields: Any) -> ScoreRequest:
    return ScoreRequest("r", inputs, **fields)


def transformer(folder: Path, name: str) -> Any:
    import torch
    import transformers

    with torch.no_grad():
        return getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()


async def test_an_outcome_model_equals_transformers(engine: Embedded, folders: dict[str, Path]) -> None:
    import torch

    model = transformer(folders["outcome"], "AutoModelForSequenceClassification")
    texts = ("2 + 3 = 5", "something longer, which goes on")
    scores = await engine.score(ask(*texts, model="outcome"))
    for text, (value,) in zip(texts, scores.values, strict=True):
        ids = engine.tokenize(text)
        with torch.no_grad():
            expected = float(model(torch.tensor([ids])).logits[0, 0])
        assert value == pytest.approx(expected, abs=1e-4)
    assert scores.prompt_tokens == sum(len(engine.tokenize(text)) for text in texts)


async def test_turns_stand_in_the_models_own_format(engine: Embedded) -> None:
    whole = engine.render_chat(TURNS) + "5<|im_end|>\n"
    ((asked,),) = (await engine.score(ask("5", model="outcome", turns=TURNS))).values
    ((plain,),) = (await engine.score(ask(whole, model="outcome"))).values
    assert asked == pytest.approx(plain, abs=1e-5)


async def test_a_process_model_is_read_where_steps_end(engine: Embedded, folders: dict[str, Path]) -> None:
    import torch

    text = "one\ntwo\nthree"
    model = transformer(folders["process"], "AutoModelForTokenClassification")
    with torch.no_grad():
        logits = model(torch.tensor([engine.tokenize(text)])).logits[0]
    asked = ask(text, model="process", task="token_reward", ends=((3, 7, 13),))
    (values,) = (await engine.score(asked)).values
    expected = [float(logits[end - 1, 0]) for end in (3, 7, 13)]  # a byte is a token
    assert values == pytest.approx(expected, abs=1e-4)
    (every,) = (await engine.score(ask(text, model="process", task="token_reward"))).values
    assert len(every) == len(text)
    assert every[2] == pytest.approx(values[0], abs=1e-4)


async def test_a_head_over_the_served_models_states(engine: Embedded, folders: dict[str, Path]) -> None:
    """Also of a path that was just generated, whose prefix is in the cache."""
    import torch
    from safetensors.torch import load_file

    model = transformer(folders["model"], "AutoModelForCausalLM").model
    head = load_file(folders["model"] / "heads" / "own" / "head.safetensors")
    (sample,) = await read(engine, request(prompt_of(engine, "2 + 3?")))
    answer = sample.text
    asked = ask(answer, model="own", turns=TURNS)
    first, again = [(await engine.score(asked)).values[0][0] for _ in range(2)]
    ids = engine.tokenize(engine.render_chat(TURNS) + answer)
    with torch.no_grad():
        state = model(torch.tensor([ids])).last_hidden_state[0, -1]
        expected = float(state @ head["score.weight"][0] + head["score.bias"][0])
    assert first == pytest.approx(expected, abs=1e-3)
    assert again == pytest.approx(first, abs=1e-5)


async def test_a_head_of_two_layers_judges_steps(engine: Embedded) -> None:
    asked = ask("a\nb", "c", model="steps", task="token_reward", turns=TURNS, ends=((1, 3), (1,)))
    both = (await engine.score(asked)).values
    assert [len(values) for values in both] == [2, 1]
    alone = ask("a", model="steps", turns=TURNS)
    assert both[0][0] == pytest.approx((await engine.score(alone)).values[0][0], abs=1e-4)


async def test_many_texts_while_the_engine_generates(engine: Embedded) -> None:
    import asyncio

    texts = [f"{'x' * (n % 90)} {n}" for n in range(40)]
    before = await read(engine, request("load"))
    async with asyncio.TaskGroup() as group:
        scored = group.create_task(engine.score(ask(*texts, model="outcome")))
        during = group.create_task(read(engine, request("load")))
    assert [s.text for s in during.result()] == [s.text for s in before]
    alone = await engine.score(ask(texts[17], model="outcome"))
    assert scored.result().values[17] == pytest.approx(alone.values[0], abs=1e-4)


async def test_what_is_served_stands_in_caps(engine: Embedded) -> None:
    assert engine.caps.score
    assert dict(engine.caps.rewards) == {
        "own": "outcome", "outcome": "outcome", "process": "process", "steps": "process"
    }  # fmt: skip
    assert (await engine.score(ask(model="own"))).values == ()


@pytest.mark.parametrize(
    ("fields", "error", "match"),
    [
        ({}, RequestError, "which reward model.*own"),
        ({"model": "/etc/passwd"}, UnknownModel, "no reward model"),
        ({"model": "outcome", "task": "token_reward"}, RequestError, "whole answers only"),
        ({"model": "process", "task": "token_reward", "ends": ((1,), (2,))}, RequestError, "differ"),
    ],
)
async def test_what_cannot_be_scored_is_refused(
    engine: Embedded, fields: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        await engine.score(ask("x", **fields))
    with pytest.raises(RequestError, match="context"):
        await engine.score(ask("x" * 600, model="own"))


async def test_without_any_it_says_how_to_get_one(tiny_qwen3: Path) -> None:
    made = Embedded(tiny_qwen3, inline=True)
    assert not made.caps.score
    with pytest.raises(CapabilityMissing, match="--reward-model NAME=PATH"):
        await made.score(ask("x"))


async def test_in_a_process_of_its_own(folders: dict[str, Path], engine: Embedded) -> None:
    made = Embedded(folders["model"])
    await made.start()
    try:
        there = await made.score(ask("2 + 3 = 5", model="own"))
    finally:
        await made.close()
    here = await engine.score(ask("2 + 3 = 5", model="own"))
    assert there.values[0] == pytest.approx(here.values[0], abs=1e-5)


async def test_files_that_are_no_reward_models(tmp_path: Path, folders: dict[str, Path]) -> None:
    with pytest.raises(ModelLoadError, match="no such folder"):
        read_reward("x", str(tmp_path / "nothing"))
    with pytest.raises(ModelLoadError, match="has no head that scores"):
        read_reward("x", str(folders["model"]))
    odd = write_head(tmp_path / "odd", 64)
    (odd / "head.json").write_text(json.dumps({"kind": "oracle"}))
    with pytest.raises(ModelLoadError, match="'outcome' or 'process'"):
        read_reward("x", str(odd))
    narrow = write_head(tmp_path / "narrow", 7)
    made = Embedded(folders["model"], inline=True, rewards={"narrow": str(narrow)})
    with pytest.raises(ModelLoadError, match="over 7 values where the model has 64"):
        await made.start()
    three = write_reward(tmp_path / "three", labels=3)
    made = Embedded(folders["model"], inline=True, rewards={"three": str(three)})
    with pytest.raises(ModelLoadError, match="one label or two, not 3"):
        await made.start()
    assert list(bundled_heads(folders["model"])) == ["own"]
    assert bundled_heads(tmp_path) == {}
    write_reward(tmp_path / "heads" / "whole", process=True)  # a checkpoint of its own is found as well
    write_head(tmp_path / "heads" / "small", 64)
    assert list(bundled_heads(tmp_path)) == ["small", "whole"]
    assert read_reward("whole", bundled_heads(tmp_path)["whole"]).kind == "process"
