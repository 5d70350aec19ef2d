"""GRPO on a tiny model: it learns what it is paid for, and goes on after a kill as if nothing had been."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from reason_engine.errors import SetupError
from reason_engine.training.common.policy import Policy, Rollout
from reason_engine.training.online.environment import BatchRewards
from reason_engine.training.online.grpo import Groups, GrpoConfig
from reason_engine.training.run import run
from tests.training.online import CHEAP, WORDS, Killed, config, kill_at, log, scripted_batch, weights

SHORT = [{"verifier": "length", "params": {"target": 32, "prefer": "short"}}]


def test_the_reward_rises_and_the_folder_is_whole(policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    made = config(GrpoConfig, policy, out, steps=8, samples=16, max_tokens=32, rate=0.01, rewards=SHORT)
    manifest = run("grpo", made)
    seen = log(out)
    assert seen[-1]["reward"] > seen[0]["reward"] + 0.25
    assert seen[-1]["length"] < seen[0]["length"]
    assert {"reward_std", "reward_length", "entropy", "clip_fraction", "speed", "truncated"} <= set(seen[0])
    assert manifest["metrics"]["step"] == 8 and manifest["data"]
    assert not (out / "checkpoint").exists()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert AutoModelForCausalLM.from_pretrained(out).config.model_type == "qwen3"
    assert AutoTokenizer.from_pretrained(out).chat_template
    assert not weights(out)["model.norm.weight"].equal(weights(policy)["model.norm.weight"])


def test_killed_and_resumed_ends_the_same(policy: Path, tmp_path: Path) -> None:
    """With a curriculum, so that the place in it counts, and several optimiser steps a batch, which draw an order."""
    changes: dict[str, Any] = {
        "steps": 5,
        "rate": 0.01,
        "samples": 16,
        "updates": 2,
        "minibatches": 2,
        "kl": 0.1,
        "max_tokens": 32,
        "rewards": SHORT,
        "curriculum": [{"params": {"value": {"game": 0.0}}, "steps": 2, "until": 9}],
    }
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run("grpo", config(GrpoConfig, policy, whole, **changes))
    with pytest.raises(Killed):
        run("grpo", config(GrpoConfig, policy, cut, **changes), tell=kill_at(4))
    run("grpo", config(GrpoConfig, policy, cut, **changes))
    steps = {row["step"]: row for row in log(cut)}
    assert log(whole)[-1]["kl"] > 0.01  # it has moved, so that samples of other weights would be others
    assert [row["stage"] for row in log(whole)] == [0, 0, 1, 1, 1]
    for row in log(whole):
        for name in ("loss", "reward", "kl", "tokens", "stage"):
            assert steps[row["step"]][name] == pytest.approx(row[name], abs=1e-5), (row["step"], name)
    with pytest.raises(Killed):
        run("grpo", config(GrpoConfig, policy, cut, **changes), fresh=True, tell=kill_at(2))
    with pytest.raises(SetupError, match="--fresh"):
        run("grpo", config(GrpoConfig, policy, cut, **changes, temperature=0.5))


def test_advantages_mix_outcomes_and_steps(policy: Path, tmp_path: Path) -> None:
    from reason_engine.training.common.models import load_or_build

    made = config(GrpoConfig, policy, tmp_path, scale="none", rewards=[*SHORT])
    model, _ = load_or_build(made)
    learner = Groups(made, Policy(model, 1.0, "fp32"), Policy(model, 1.0, "fp32"))
    batch = scripted_batch([[3, 2]], BatchRewards([[1.0, 0.0]], [(0.5, [[[(0, 1.0), (2, 0.0)], [(1, 2.0)]]])], {}))
    first, second = learner.advantages(batch)
    # Outcome: 0.5 and -0.5. Steps, less their mean of 1: [0, -1] at places 0 and 2; [1] at 1; half of what is to come.
    torch.testing.assert_close(first, torch.tensor([0.5 - 0.5, 0.5 - 0.5, 0.5 - 0.5]))
    torch.testing.assert_close(second, torch.tensor([-0.5 + 0.5, -0.5 + 0.5]))


def test_the_loss_does_not_depend_on_the_cut_into_passes(policy: Path, tmp_path: Path) -> None:
    from reason_engine.training.common.models import load_or_build

    for over in ("token", "sequence", "constant"):
        grads: list[Any] = []
        for most in (16, 100_000):
            made = config(GrpoConfig, policy, tmp_path, over=over, kl=0.1, micro_tokens=most, rewards=SHORT)
            model, _ = load_or_build(made)
            start, _ = load_or_build(made)
            with torch.no_grad():
                model.lm_head.weight.mul_(1.1)
            learner = Groups(made, Policy(model, 1.0, "fp32"), Policy(start, 1.0, "fp32"))
            items = learner.items(scripted_batch([[3, 7], [2, 5]], BatchRewards([[1.0, 0.0], [0.0, 2.0]], [], {})))
            passes = [[one] for one in items] if most == 16 else [items]
            told = [0.0, 0.0]
            for part in passes:
                loss, parts = learner.loss(part, items)
                loss.backward()
                told = [told[0] + loss.item(), told[1] + parts["kl"]]
            grads.append((*told, model.lm_head.weight.grad.clone()))
        torch.testing.assert_close(grads[0], grads[1], atol=1e-5, rtol=1e-3)
        assert grads[0][1] > 0


def test_a_masked_answer_teaches_nothing(policy: Path, tmp_path: Path) -> None:
    from reason_engine.training.common.models import load_or_build

    made = config(GrpoConfig, policy, tmp_path, mask_truncated=True, rewards=SHORT)
    model, _ = load_or_build(made)
    learner = Groups(made, Policy(model, 1.0, "fp32"), Policy(model, 1.0, "fp32"))
    batch = scripted_batch([[3, 8]], BatchRewards([[1.0, 0.0]], [], {}), cut={(0, 1)})
    items = learner.items(batch)
    loss, _ = learner.loss(items[1:], items)
    assert loss.item() == 0
    loss, _ = learner.loss(items, items)
    assert loss.item() == pytest.approx(-items[0].advantages[0].item(), abs=1e-5)


def test_dynamic_sampling_draws_others_in_place_of_what_is_alike(policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    # Nobody solves these, so all rewards are alike: no step is taken, and the weights stay.
    alike = [{"verifier": "exact"}]
    run("grpo", config(GrpoConfig, policy, out, steps=1, refill=2, rewards=alike))
    (row,) = log(out)
    assert row["flat"] == 1 and row["loss"] == 0
    assert row["tokens"] >= 2 * 4 * 3  # three draws of two problems
    assert weights(out)["model.norm.weight"].equal(weights(policy)["model.norm.weight"].bfloat16())


def test_files_of_prompts_and_frozen_weights(policy: Path, tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{n} + 1?", "answer": str(n + 1)}) + "\n" for n in range(5)))
    out = tmp_path / "o"
    changes = {"mixture": [], "data": data, "steps": 2, "max_tokens": 16, "freeze": ["mlp", "embed"]}
    run("grpo", config(GrpoConfig, policy, out, **changes, rewards=[{"verifier": "exact"}, *SHORT]))
    assert {"reward_exact", "reward_length"} <= set(log(out)[0])
    before, after = weights(policy), weights(out)
    moved = {name for name in before if not before[name].bfloat16().equal(after[name])}
    assert moved and not any("mlp" in name or "embed" in name for name in moved)


def test_a_loss_that_is_no_number_stops_and_keeps_what_was(policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    changes = {"steps": 6, "samples": 16, "max_tokens": 32, "rewards": SHORT, "warmup": 0}
    with pytest.raises(Killed):
        run("grpo", config(GrpoConfig, policy, out, **changes), tell=kill_at(2))
    kept = (out / "checkpoint" / "state.pt").read_bytes()
    wild = tmp_path / "wild"
    with pytest.raises(SetupError, match=r"step 1: .*lower the rate"):
        run("grpo", config(GrpoConfig, policy, wild, **changes, rate=1e30))
    assert (out / "checkpoint" / "state.pt").read_bytes() == kept
    assert not (wild / "model.safetensors").exists()


def test_rate() -> None:
    made = config(GrpoConfig, Path("m"), Path("o"), steps=6, warmup=2, final=0.2, rate=1.0)
    assert [made.rate_at(step) for step in range(6)] == pytest.approx([0.5, 1, 1, 1 - 0.8 / 3, 1 - 1.6 / 3, 0.2])
    assert config(GrpoConfig, Path("m"), Path("o"), steps=1).rate_at(0) == 1


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"samples": 1}, "samples"),
        ({"rewards": []}, "rewards"),
        ({"rewards": [{"verifier": "exakt"}]}, "did you mean 'exact'"),
        ({"rewards": [{"verifier": "length", "params": {"target": 0}}]}, "length: params.target"),
        ({"rewards": [{"verifier": "exact", "weight": math.inf}]}, "finite"),
        ({"rewards": [{"verifier": "exact", "families": ["words"]}]}, "no family 'words'"),
        ({"rewards": [{"verifier": "exact"}, {"verifier": "exact"}]}, "stands twice"),
        ({"mixture": []}, "either data or mixture"),
        ({"data": "d.jsonl"}, "either data or mixture"),
        ({"mixture": [], "data": "d", "curriculum": [{"params": {}}]}, "families of a mixture"),
        ({"curriculum": [{"params": {"words": {}}}]}, "no family 'words'"),
        ({"curriculum": [{"params": {"value": {"step": 3}}}]}, r"value: params\.step"),
        ({"freeze": ["("]}, "not a regular expression"),
        ({"temperature": 0}, "temperature"),
        ({"scale": "all"}, "scale"),
    ],
)
def test_bad_configs_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        GrpoConfig.model_validate({**CHEAP, "model": "m", "out": "o", **changes})


@pytest.mark.parametrize(
    "rewards, said",
    [
        ([{"verifier": "exact", "process": True}], "judges whole answers"),
        ([{"verifier": "judge"}], "`judge`"),
        ([{"verifier": "reward-model"}], "`judge`"),
        ([{"verifier": "countdown"}], "numbers"),
    ],
)
def test_rewards_that_cannot_judge_are_refused(
    policy: Path, tmp_path: Path, rewards: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(SetupError, match=said):
        run("grpo", config(GrpoConfig, policy, tmp_path / "o", rewards=rewards, mixture=WORDS))
    assert not (tmp_path / "o" / "model.safetensors").exists()


def test_passes_hold_so_many_tokens_and_keep_prompts_together() -> None:
    from reason_engine.training.common.policy import micro_batch_indices, pass_tokens

    rows = [Rollout((1, 2), (3, 4, 5)), Rollout((6,), (7,)), Rollout((1, 2), (9,))]
    assert pass_tokens(rows[:2]) == 7 and pass_tokens(rows) == 8 and pass_tokens([rows[0], rows[2]]) == 6
    assert micro_batch_indices(rows, 6) == [[0, 2], [1]] and micro_batch_indices(rows, 8) == [[0, 2, 1]]
    assert micro_batch_indices(rows, 1) == [[0], [2], [1]]
    assert pass_tokens(rows[:2], packed=False) == 16
    assert micro_batch_indices(rows, 8, packed=False) == [[0], [2, 1]]


@pytest.mark.parametrize("lengths", [[[3, 7], [2, 5, 1]], [[1, 1]], [[4], [6, 40]]])
def test_a_prompt_read_once_teaches_the_same(policy: Path, lengths: list[list[int]]) -> None:
    from reason_engine.training.common.models import load_model

    prompts = [(5, 6, 7), (9, 8), (1, 2, 3, 4, 5, 6, 7)]
    rows = [
        Rollout(prompts[p], tuple(range(10 * g + 20, 10 * g + 20 + n)))
        for p, group in enumerate(lengths)
        for g, n in enumerate(group)
    ]
    found: list[Any] = []
    for shared in (False, True):
        model, _ = load_model(policy)
        asked = Policy(model, 0.8, "fp32")
        assert asked.packs
        parts = [rows] if shared else [[row] for row in rows]
        logprobs_N = torch.cat([asked.logprobs(part)[0] for part in parts])
        (logprobs_N * torch.arange(1.0, 1 + len(logprobs_N))).sum().backward()
        found.append((logprobs_N, {name: p.grad for name, p in model.named_parameters()}))
    torch.testing.assert_close(found[0], found[1], atol=2e-4, rtol=1e-4)


def test_a_window_of_attention_is_not_shared_over() -> None:
    from reason_engine.training.kernels.packing import attends_to_all

    assert attends_to_all({"layer_types": ["full_attention"] * 2, "sliding_window": 8})
    assert not attends_to_all({"layer_types": ["full_attention", "sliding_attention"]})
    assert not attends_to_all({"sliding_window": 8}) and attends_to_all({"sliding_window": None})
