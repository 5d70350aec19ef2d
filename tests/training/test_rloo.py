"""REINFORCE leave-one-out: the numbers by hand, and a tiny model that learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reason_engine.training.common.models import load_or_build
from reason_engine.training.common.policy import Policy
from reason_engine.training.online.environment import BatchRewards
from reason_engine.training.online.rloo import LeaveOneOut, RlooConfig
from reason_engine.training.run import run
from tests.training.online import Killed, config, kill_at, log, scripted_batch

SHORT = [{"verifier": "length", "params": {"target": 32, "prefer": "short"}}]


def test_the_reward_rises_and_a_killed_run_ends_the_same(policy: Path, tmp_path: Path) -> None:
    changes = {"steps": 8, "samples": 16, "max_tokens": 32, "rate": 0.01, "rewards": SHORT, "normalise": True}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run("rloo", config(RlooConfig, policy, whole, **changes))
    seen = log(whole)
    assert seen[-1]["reward"] > seen[0]["reward"] + 0.25
    assert seen[0]["kl"] == pytest.approx(0, abs=1e-4) and seen[-1]["kl"] > 0.1
    with pytest.raises(Killed):
        run("rloo", config(RlooConfig, policy, cut, **changes), tell=kill_at(6))
    run("rloo", config(RlooConfig, policy, cut, **changes))
    assert log(cut)[-1]["reward"] == pytest.approx(seen[-1]["reward"], abs=1e-5)


def test_items_and_loss_by_hand(policy: Path, tmp_path: Path) -> None:
    made = config(RlooConfig, policy, tmp_path, kl=0.1, rewards=SHORT)
    (model, _), (start, _) = load_or_build(made), load_or_build(made)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.2)
    now, then = Policy(model, 1.0, "fp32"), Policy(start, 1.0, "fp32")
    batch = scripted_batch([[3, 5]], BatchRewards([[1.0, 0.0]], [(0.5, [[[(0, 1.0), (1, 0.0)], []]])], {}))
    learner = LeaveOneOut(made, now, then)
    items = learner.items(batch)
    kl = [
        (a.sum() - b.sum()).item()
        for a, b in zip(now.measure(batch.rollouts, 99), then.measure(batch.rollouts, 99), strict=True)
    ]
    first = (1 + 0.5 * 0.5 - 0.1 * kl[0]) - (0 - 0.1 * kl[1])
    assert [one.advantage for one in items] == pytest.approx([first, -first], abs=1e-4)
    loss, told = learner.loss(items, items)
    assert loss.item() == pytest.approx(0, abs=1e-5)  # two opposite advantages at a ratio of 1
    loss.backward()
    grad = model.lm_head.weight.grad.clone()
    model.zero_grad()
    sums = torch.stack([part.sum() for part in now.logprobs(batch.rollouts)[0].split([3, 5])])
    (-(sums * torch.tensor([first, -first])).mean()).backward()
    torch.testing.assert_close(grad, model.lm_head.weight.grad, atol=1e-4, rtol=1e-3)
    assert told["kl"] == pytest.approx(sum(kl) / 2, abs=1e-4)
