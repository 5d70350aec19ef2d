"""Reward models from training to the verifier's engine: what was learned is what is served, by either kind of file."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.rewards.folders import read_reward
from reason_engine.errors import SetupError
from reason_engine.steps import step_ends
from reason_engine.training.supervised.reward import RewardConfig
from reason_engine.types import Message, ScoreRequest
from tests.models import write_model
from tests.training.test_methods import PAIRS, SOLVED, lines, train

pytestmark = pytest.mark.asyncio(loop_scope="module")
SIDE = {"train": "side", "wide": 32, "deep": 1, "adamw_rate": 0.01}
LINES = {"step_end": "\n"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "outcome": ("reward", {}),
    "outcome-head": ("reward", {"train": "head", "wide": 16, "adamw_rate": 0.02}),
    "process": ("process-reward", LINES),
    "process-speaking": ("process-reward", {"lm": 0.2, **LINES}),
    "process-head": ("process-reward", {"train": "head", "wide": 16, "adamw_rate": 0.02, **LINES}),
    "outcome-side": ("reward", SIDE),
    "process-side": ("process-reward", {**SIDE, **LINES}),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "model", scale=1.0, num_hidden_layers=1)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(base: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Embedded]:
    home, given = tmp_path_factory.mktemp("rewards"), dict[str, str]()
    for name, (method, changes) in KINDS.items():
        train(method, base, home / name, tokens=6000, **changes)
        given[name] = str(home / name / "out")
        assert read_reward(name, given[name]).kind == name.split("-")[0]
    made = Embedded(base, inline=True, rewards=given)
    await made.start()
    yield made
    await made.close()


@pytest.mark.parametrize("name", ["outcome", "outcome-head", "outcome-side"])
async def test_the_better_answer_has_the_higher_reward(engine: Embedded, name: str) -> None:
    for row in PAIRS:
        asked = ScoreRequest("r", (row["chosen"], row["rejected"]), model=name, turns=(Message("user", row["prompt"]),))
        (better,), (worse,) = (await engine.score(asked)).values
        assert better > worse + 0.5


@pytest.mark.parametrize("name", ["process", "process-speaking", "process-head", "process-side"])
async def test_wrong_steps_are_told_from_right_ones(engine: Embedded, name: str) -> None:
    row = SOLVED[3]
    text = "\n".join(row["completions"])
    asked = ScoreRequest(
        "r",
        (text,),
        task="token_reward",
        model=name,
        turns=(Message("user", row["prompt"]),),
        ends=(step_ends(text, "\n"),),
    )
    ((first, second, third),) = (await engine.score(asked)).values
    assert first > 0 > second and third > 0


async def test_a_head_leaves_the_model_alone_and_names_its_base(base: Path, tmp_path: Path) -> None:
    log = train("reward", base, tmp_path, train="head", tokens=600, adamw_rate=0.05)
    out = tmp_path / "out"
    assert not (out / "config.json").exists() and (out / "head.safetensors").is_file()
    said = json.loads((out / "head.json").read_text())
    assert said["kind"] == "outcome" and len(said["base"]) == 16
    assert log[-1]["loss"] < log[0]["loss"]
    fields = {"out": "o", "model": base, "data": "d", "tokens": 1}
    rates = [RewardConfig.model_validate({**fields, **more}).adamw_rate for more in ({}, {"train": "head"})]
    assert rates == [2e-5, 1e-3]


async def test_a_step_is_read_at_its_last_token(base: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from reason_engine.data.formats.rows import Stepwise
    from reason_engine.training.supervised.process_reward import Processes, ProcessRewardConfig

    fields = {"out": "o", "model": base, "data": "d", "tokens": 1, "train": "head", "step_end": "\n"}
    config = ProcessRewardConfig.model_validate(fields)
    tokenizer = AutoTokenizer.from_pretrained(base)
    made = Processes(config, AutoModelForCausalLM.from_pretrained(base), tokenizer)
    steps = ("one", "two", "three")
    (item,) = made.encode([Stepwise((Message("user", "q"),), steps, (1.0, 0.5, 0.0))])
    assert [tokenizer.decode(item.ids[: place + 1])[-3:] for place in item.places] == ["one", "two", "ree"]
    with pytest.raises(SetupError, match="set step_end"):
        made.encode([Stepwise((Message("user", "q"),), ("a\n\nb",), (1.0,))])


async def test_steps_end_where_the_models_profile_says(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from reason_engine.data.formats.rows import Stepwise
    from reason_engine.profile import Profile
    from reason_engine.training.supervised.process_reward import Processes, ProcessRewardConfig

    shutil.copytree(base, tmp_path / "model")
    (tmp_path / "model" / "reason.json").write_text(json.dumps({"step_end": ";"}))
    texts: list[str] = []
    for folder in (base, tmp_path / "model"):
        fields = {"out": "o", "model": folder, "data": "d", "tokens": 1, "train": "head"}
        config, tokenizer = ProcessRewardConfig.model_validate(fields), AutoTokenizer.from_pretrained(folder)
        made = Processes(config, AutoModelForCausalLM.from_pretrained(folder), tokenizer)
        (item,) = made.encode([Stepwise((Message("user", "q"),), ("one", "two"), (1.0, 0.0))])
        texts.append(tokenizer.decode(item.ids))
    assert texts[0].endswith(f"one{Profile().step_end}two")
    assert texts[1].endswith("one;two")


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"wide": 8}, "train: head"),
        ({"wide": 8, "train": "side"}, "a multiple of 32"),
        ({"deep": 3}, "only a side network"),
        ({"begin": "x"}, "begin: a whole checkpoint begins from model"),
        ({"peft": "prompt"}, "lora, dora or ia3"),
        ({"peft": "lora", "train": "head"}, "lora, dora or ia3"),
        ({"peft": {"method": "lora", "merge": False}}, "served merged"),
    ],
)
async def test_bad_keys(base: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        train("reward", base, tmp_path, **changes)


async def test_a_head_begins_with_another(base: Path, tmp_path: Path) -> None:
    side = {"train": "side", "wide": 32, "deep": 1}
    train("process-reward", base, tmp_path / "first", tokens=4000, adamw_rate=0.01, **side)
    begin = tmp_path / "first" / "out"
    fresh = train("reward", base, tmp_path / "fresh", tokens=64, adamw_rate=1e-9, **side)
    again = train("reward", base, tmp_path / "again", tokens=64, adamw_rate=1e-9, begin=begin, **side)
    assert again[0]["loss"] != pytest.approx(fresh[0]["loss"], abs=1e-3)
    with pytest.raises(SetupError, match=r"begin: .*another head than this one"):
        train("reward", base, tmp_path / "other", tokens=64, begin=begin, **(side | {"wide": 64}))
    with pytest.raises(SetupError, match=r"begin: .*no head can be read"):
        train("reward", base, tmp_path / "none", tokens=64, begin=tmp_path, **side)


async def test_answers_that_do_not_fit_are_refused(base: Path, tmp_path: Path) -> None:
    data = lines(tmp_path / "long.jsonl", [{"prompt": "q", "chosen": "x" * 200, "rejected": "y"}])
    with pytest.raises(SetupError, match="above max_length 128: a reward is read at its end"):
        train("reward", base, tmp_path, data=data)
