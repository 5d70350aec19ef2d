"""An adapter in the methods that sample from the model: it is trained and handed to the engine, the base stays."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from reason_engine.errors import SetupError
from reason_engine.training import trainers
from reason_engine.training.online.grpo import GrpoConfig
from reason_engine.training.run import run
from tests.training.online import CHEAP, Killed, config, kill_at, log, scripted_batch, weights

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore:.*peft.*:UserWarning"),
    pytest.mark.skipif("not __import__('importlib.util').util.find_spec('peft')", reason="extra train"),
]
METHODS = ("grpo", "rloo", "ppo", "online-dpo")
SHORT = [{"verifier": "length", "params": {"target": 32, "prefer": "short"}}]
LEARNING: dict[str, Any] = {"steps": 6, "samples": 16, "max_tokens": 32, "rate": 0.02, "rewards": SHORT}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_an_adapter_alone(policy: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "o"
    said: list[str] = []
    made = config(trainers.get(method).config, policy, out, **LEARNING, peft={"method": "lora", "rank": 4})
    run(method, made, tell=lambda row: said.append(str(row.get("note", ""))))
    seen = log(out)
    assert seen[-1]["length"] < seen[0]["length"] - 2
    settings = json.loads((out / "adapter" / "adapter_config.json").read_text())
    assert settings["peft_type"] == "LORA" and settings["base_model_name_or_path"] == str(policy)
    trained = int(next(note for note in said if "are trained" in note).split()[0].replace(",", ""))
    assert trained < 0.5 * sum(tensor.numel() for tensor in weights(policy).values())
    before, after = weights(policy), weights(out)  # merged around the adapter
    assert not before["model.layers.0.mlp.up_proj.weight"].bfloat16().equal(after["model.layers.0.mlp.up_proj.weight"])
    assert before["model.embed_tokens.weight"].bfloat16().equal(after["model.embed_tokens.weight"])


@pytest.mark.parametrize("kind", ["dora", "ia3", "prompt", "adapter"])
def test_every_kind_is_sampled_from(policy: Path, tmp_path: Path, kind: str) -> None:
    out, weak = tmp_path / "o", kind in ("prompt", "ia3")
    changes = {**LEARNING, "rate": 0.3 if weak else 0.02}
    run("grpo", config(GrpoConfig, policy, out, **changes, peft=kind, kl=0.001))
    seen = log(out)
    assert seen[-1]["kl"] > 0.01
    assert weak or seen[-1]["length"] < seen[0]["length"] - 2  # the words of a random model hang on few of its weights
    assert (out / "adapter" / "adapter_model.safetensors").is_file() and (out / "model.safetensors").is_file()


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "prompt", "adapter"])
def test_the_engine_draws_from_what_the_trainer_measures(policy: Path, tmp_path: Path, kind: str) -> None:
    from reason_engine.training.common.models import load_model
    from reason_engine.training.online.actor import Actor
    from reason_engine.training.online.environment import Curriculum
    from reason_engine.training.online.grpo import Groups
    from reason_engine.training.online.loop import make_learner

    process = [{"verifier": "process-rules", "process": True}]
    made = config(GrpoConfig, policy, tmp_path, rewards=process, max_tokens=12, peft=kind)
    learner, adapted = make_learner(made, Groups, load_model(policy)[0])
    assert adapted is not None
    with torch.no_grad():
        for parameter in adapted.module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    tasks = Curriculum(made).take(2)
    with Actor(made) as actor:
        plain = [path for group in actor.sample(tasks, 3, "0") for path in group.paths]
        actor.take_weights(learner.modules["policy"], adapted)
        paths = [path for group in actor.sample(tasks, 3, "0") for path in group.paths]
    for drawn, measuring in ((plain, learner._reference), (paths, learner._policy)):
        rows = [row for path in drawn for row in [_rollout(path)]]
        for values, path in zip(measuring.measure(rows, 10_000), drawn, strict=True):
            said = torch.tensor([token.logprob for token in path.logprobs])
            torch.testing.assert_close(values, said, atol=2e-4, rtol=1e-4)
    assert [path.text for path in plain] != [path.text for path in paths]
    rows = [_rollout(path) for path in paths]
    sums = [learner._policy.measure_sums(rows, 64), learner._reference.measure_sums(rows, 64)]
    assert sums[0] != pytest.approx(sums[1], abs=1e-2)


def test_the_reference_is_the_same_weights(policy: Path, tmp_path: Path) -> None:
    from reason_engine.training.common.models import load_model
    from reason_engine.training.online.loop import make_learner
    from reason_engine.training.online.ppo import ActorCritic, PpoConfig

    model, _ = load_model(policy)
    learner, _ = make_learner(config(PpoConfig, policy, tmp_path, peft="lora"), ActorCritic, model)
    own = {parameter.data_ptr() for parameter in model.parameters() if not parameter.requires_grad}
    start = {parameter.data_ptr() for parameter in learner._reference.model.parameters()}
    critic = {p.data_ptr() for p in learner.modules["value"].parameters() if not p.requires_grad}
    assert own and start == own and critic == own
    assert not any("lora" in name for name, _ in learner._reference.model.named_parameters())
    trained = [{p.data_ptr() for p in module.parameters() if p.requires_grad} for module in learner.modules.values()]
    assert len(trained) == 2 and not trained[0] & trained[1]


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_killed_and_resumed_ends_the_same(policy: Path, tmp_path: Path, method: str) -> None:
    kind, whole, cut = trainers.get(method).config, tmp_path / "whole", tmp_path / "cut"
    changes = {**LEARNING, "steps": 4, "kl": 0.1, "minibatches": 2, "peft": "lora"}
    run(method, config(kind, policy, whole, **changes))
    with pytest.raises(Killed):
        run(method, config(kind, policy, cut, **changes), tell=kill_at(3))
    size = (cut / "checkpoint" / "state.pt").stat().st_size
    assert size < 3.5 * (1 + (method == "ppo")) * _size(whole / "adapter" / "adapter_model.safetensors") + 100_000
    run(method, config(kind, policy, cut, **changes))
    from safetensors.torch import load_file

    first, second = (load_file(one / "adapter" / "adapter_model.safetensors") for one in (whole, cut))
    assert all(first[name].equal(second[name]) for name in first)
    assert all(
        first.equal(second) for first, second in zip(weights(whole).values(), weights(cut).values(), strict=True)
    )


async def test_the_adapter_is_served_beside_its_base(policy: Path, tmp_path: Path) -> None:
    from reason_engine.engines.embedded.front import Embedded
    from reason_engine.types import Message, Sampling
    from tests.engines.contract import read, request

    made = config(GrpoConfig, policy, tmp_path / "o", **LEARNING, peft={"method": "lora", "merge": False}, keep_every=3)
    await asyncio.to_thread(run, "grpo", made)
    assert not (tmp_path / "o" / "model.safetensors").exists()
    assert (tmp_path / "o" / "at-3" / "adapter_model.safetensors").is_file()
    engine = Embedded(policy, inline=True)
    await engine.start()
    try:
        await engine.load_adapter("taught", str(tmp_path / "o" / "adapter"))
        prompt, sampling = engine.render_chat([Message("user", "Say 3")]), Sampling(32, 1.0, seed=1)
        taught = await read(engine, request(prompt, sampling, n=16, adapter="taught"))
        plain = await read(engine, request(prompt, sampling, n=16))
    finally:
        await engine.close()
    assert [one.text for one in taught] != [one.text for one in plain]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"peft": "lorra"}, "peft"),
        ({"peft": {"method": "lora", "rank": 0}}, "rank"),
        ({"peft": "lora", "compile": True}, "compile"),
        ({"peft": {"method": "lora", "dropout": 0.1}}, "dropout"),
    ],
)
def test_bad_keys(changes: dict[str, Any], said: str) -> None:
    for method in METHODS:
        with pytest.raises(ValidationError, match=said):
            trainers.get(method).config.model_validate({**CHEAP, "model": "m", "out": "o", **changes})


@pytest.mark.parametrize("method", ["grpo", "ppo"])
@pytest.mark.parametrize("kind", [None, "lora"])
def test_what_is_worked_out_again_is_the_same(policy: Path, tmp_path: Path, method: str, kind: str | None) -> None:
    rows: list[Any] = []
    for again in (True, False):
        changes = {**LEARNING, "steps": 2, "kl": 0.1, "peft": kind, "checkpointing": again}
        run(method, config(trainers.get(method).config, policy, tmp_path / str(again), **changes))
        rows.append([(row["loss"], row["norm"]) for row in log(tmp_path / str(again))])
    assert rows[0][1] == pytest.approx(rows[1][1], abs=1e-4, rel=1e-3)


def test_a_group_that_is_all_alike_is_not_read(policy: Path, tmp_path: Path) -> None:
    from reason_engine.training.common.models import load_model
    from reason_engine.training.online.environment import BatchRewards
    from reason_engine.training.online.grpo import Groups
    from reason_engine.training.online.loop import learn, make_learner

    found: list[Any] = []
    for alike in (True, False):
        made = config(GrpoConfig, policy, tmp_path, peft="lora")
        learner, _ = make_learner(made, Groups, load_model(policy)[0])
        read: list[int] = []
        real = learner._policy.logprobs
        learner._policy.logprobs = lambda rows, real=real, read=read, **how: read.append(len(rows)) or real(rows, **how)
        if not alike:
            learner.teaches = lambda item: True
        trained = [p for p in learner.modules["policy"].parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=0.01)
        torch.manual_seed(0)
        for parameter in trained:
            torch.nn.init.normal_(parameter, std=0.1)
        batch = scripted_batch([[3, 7], [2, 5]], BatchRewards([[0.1, 0.1], [0.0, 2.0]], [], {}))
        learn(made, learner, optimiser, batch, 1)
        found.append((sum(read), [parameter.detach().clone() for parameter in trained]))
        before = [parameter.detach().clone() for parameter in trained]
        if alike:
            flat = scripted_batch([[3, 7]], BatchRewards([[0.7, 0.7]], [], {}))
            assert learn(made, learner, optimiser, flat, 2) == {"loss": 0.0} and sum(read) == 2
            assert all(one.equal(two) for one, two in zip(before, trained, strict=True))
    assert found[0][0] == 2 and found[1][0] == 4
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=1e-4)


def test_targets_that_no_matrix_has(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="peft: "):
        run("grpo", config(GrpoConfig, policy, tmp_path, peft={"method": "lora", "targets": ["nowhere"]}))


def test_an_adapter_that_the_engine_cannot_serve_is_named_first(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"peft\.targets: .*embed_tokens, only of q_proj"):
        run("grpo", config(GrpoConfig, policy, tmp_path / "o", peft={"method": "lora", "targets": ["embed_tokens"]}))
    assert not (tmp_path / "o" / "log.jsonl").exists()
    made = config(GrpoConfig, policy, tmp_path / "p", steps=1, peft={"method": "lora", "targets": ["q_proj"]})
    assert run("grpo", made)["metrics"]["step"] == 1


def _rollout(path: Any) -> Any:
    from reason_engine.training.common.encode import Rollout

    return Rollout(path.prompt_ids, path.token_ids)


def _size(file: Path) -> int:
    return file.stat().st_size
