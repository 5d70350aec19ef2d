"""Preferences among a model's own samples: the right pairs, the loss by hand, and a tiny model that learns."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from reason_engine.training.common.models import load_or_build
from reason_engine.training.common.policy import Policy
from reason_engine.training.online.environment import BatchRewards
from reason_engine.training.online.online_dpo import OnlineDpoConfig, Pairs
from reason_engine.training.run import run
from tests.training.online import config, log, scripted_batch

SHORT = [{"verifier": "length", "params": {"target": 32, "prefer": "short"}}]


def test_the_reward_rises(policy: Path, tmp_path: Path) -> None:
    changes = {"steps": 12, "prompts": 4, "samples": 8, "max_tokens": 32, "rate": 0.01, "rewards": SHORT}
    run("online-dpo", config(OnlineDpoConfig, policy, tmp_path, **changes))
    seen = log(tmp_path)
    assert seen[-1]["reward"] > seen[0]["reward"] + 0.25
    assert seen[0]["loss"] == pytest.approx(math.log(2), abs=1e-4) and {"margin", "accuracy"} <= set(seen[0])


def test_pairs_and_loss_by_hand(policy: Path, tmp_path: Path) -> None:
    made = config(OnlineDpoConfig, policy, tmp_path, beta=0.5, samples=3, mask_truncated=True, rewards=SHORT)
    (model, _), (start, _) = load_or_build(made), load_or_build(made)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.2)
    now, then = Policy(model, 1.0, "fp32"), Policy(start, 1.0, "fp32")
    learner = Pairs(made, now, then)
    # Best and worst; all alike; the best was cut.
    rewards = [[0.5, 2.0, 0.0], [1.0, 1.0, 1.0], [0.2, 0.1, 9.0]]
    batch = scripted_batch([[3, 4, 5], [3, 3, 3], [2, 4, 8]], BatchRewards(rewards, [], {}), cut={(2, 2)})
    items = learner.items(batch)
    rollouts = batch.rollouts
    assert [(one.chosen, one.rejected) for one in items] == [(rollouts[1], rollouts[2]), (rollouts[6], rollouts[7])]
    loss, _ = learner.loss(items, items)
    a, b = now.measure(rollouts, 99), then.measure(rollouts, 99)
    margins = [0.5 * ((a[i].sum() - b[i].sum()) - (a[j].sum() - b[j].sum())).item() for i, j in ((1, 2), (6, 7))]
    assert loss.item() == pytest.approx(sum(math.log1p(math.exp(-m)) for m in margins) / 2, abs=1e-4)
    parts = [learner.loss([one], items)[0].item() for one in items]
    assert sum(parts) == pytest.approx(loss.item(), abs=1e-5)
