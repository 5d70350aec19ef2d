"""PPO: where rewards stand, what the critic learns, and a tiny model that learns by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reason_engine.training.common.models import load_or_build
from reason_engine.training.common.policy import Policy
from reason_engine.training.online.environment import BatchRewards
from reason_engine.training.online.ppo import ActorCritic, PpoConfig, token_rewards
from reason_engine.training.run import run
from tests.training.online import Killed, config, kill_at, log, scripted_batch

SHORT = [{"verifier": "length", "params": {"target": 32, "prefer": "short"}}]


def test_the_reward_rises_and_a_killed_run_ends_the_same(policy: Path, tmp_path: Path) -> None:
    changes = {"steps": 8, "prompts": 24, "samples": 1, "max_tokens": 32, "rate": 0.01, "rewards": SHORT}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run("ppo", config(PpoConfig, policy, whole, **changes))
    seen = log(whole)
    assert seen[-1]["reward"] > seen[0]["reward"] + 0.25
    assert {"value_loss", "kl", "clip_fraction", "entropy"} <= set(seen[0])
    assert any(row["clip_fraction"] > 0 for row in seen)
    with pytest.raises(Killed):
        run("ppo", config(PpoConfig, policy, cut, **changes), tell=kill_at(6))
    run("ppo", config(PpoConfig, policy, cut, **changes))
    assert log(cut)[-1]["value_loss"] == pytest.approx(seen[-1]["value_loss"], abs=1e-4)
    from safetensors.torch import load_file

    assert not any("value" in name for name in load_file(whole / "model.safetensors"))


def test_rewards_stand_at_the_last_token_and_where_steps_end() -> None:
    rewards = BatchRewards([[1.0, -1.0]], [(0.5, [[[(0, 1.0), (2, 0.5)], []]])], {})
    first, second = token_rewards(scripted_batch([[3, 2]], rewards))
    assert first.tolist() == [0.5, 0.0, 1.25] and second.tolist() == [0.0, -1.0]


def test_the_divergence_is_a_part_of_the_reward(policy: Path, tmp_path: Path) -> None:
    made = config(PpoConfig, policy, tmp_path, kl=0.1, gamma=1.0, decay=1.0, rewards=SHORT)
    (model, _), (start, _) = load_or_build(made), load_or_build(made)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.2)
    now, then = Policy(model, 1.0, "fp32"), Policy(start, 1.0, "fp32")
    batch = scripted_batch([[3], [5]], BatchRewards([[1.0], [0.0]], [], {}))
    learner = ActorCritic(made, now, then)
    items = learner.items(batch)
    away = [a - b for a, b in zip(now.measure(batch.rollouts, 99), then.measure(batch.rollouts, 99), strict=True)]
    for one, kl, reward in zip(items, away, (1.0, 0.0), strict=True):
        assert not one.values.any()  # a head that starts at zero
        to_come = reward - 0.1 * kl.flip(0).cumsum(0).flip(0)
        torch.testing.assert_close(one.returns, to_come, atol=1e-5, rtol=1e-4)
    whitened = torch.cat([one.advantages for one in items])
    assert whitened.mean().item() == pytest.approx(0, abs=1e-5)
    loss, told = learner.loss(items, items)
    wrong = sum((one.returns**2).sum().item() for one in items) / 2 / 8
    assert told["value_loss"] == pytest.approx(wrong, rel=1e-3)
    loss.backward()
    assert learner.value.head.weight.grad.any() and not any(p.grad is not None for p in start.parameters())


def test_the_critic_learns_what_an_answer_is_worth(policy: Path, tmp_path: Path) -> None:
    made = config(PpoConfig, policy, tmp_path, kl=0.0, value_clip=1.0, rewards=SHORT)
    model, _ = load_or_build(made)
    learner = ActorCritic(made, Policy(model, 1.0, "fp32"), Policy(model, 1.0, "fp32"))
    batch = scripted_batch([[4], [4]], BatchRewards([[1.0], [-1.0]], [], {}))
    optimiser = torch.optim.AdamW(learner.value.parameters(), 1e-2)
    for _ in range(30):
        items = learner.items(batch)
        learner.loss(items, items)[0].backward()
        optimiser.step()
        optimiser.zero_grad()
    good, bad = learner.value.measure(batch.rollouts, 99)
    assert good[-1] > 0.5 and bad[-1] < -0.5
