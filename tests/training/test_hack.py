"""The recipes of a hacked reward: they run, and on a tiny model the divergence holds what the bare reward lets go."""

from __future__ import annotations

from pathlib import Path

import pytest

from reason_engine.training.online.grpo import GrpoConfig
from reason_engine.training.run import prepare, run
from tests.training.online import config, log

RECIPES = Path(__file__).parents[2] / "docs" / "recipes" / "hack"
SMALL = ["steps=1", "prompts=2", "samples=2", "max_tokens=8"]


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.stem)
def test_recipes_run(file: Path, policy: Path, tmp_path: Path) -> None:
    run("grpo", prepare("grpo", file, [f"model={policy}", f"out={tmp_path}", *SMALL]))
    (row,) = log(tmp_path)
    assert {"reward_exact", "reward_length", "length"} <= set(row)
    assert ("kl" in row) == ("kl" in file.stem) and ("reward_process-rules" in row) == (file.stem[0] == "3")


def test_without_the_divergence_the_reward_runs_away(policy: Path, tmp_path: Path) -> None:
    rewards = [{"verifier": "length", "params": {"target": 32, "prefer": "short"}}]
    last = {}
    for kl in (0.0, 20.0):
        out = tmp_path / str(kl)
        changes = {"steps": 10, "samples": 16, "max_tokens": 32, "rate": 0.01, "rewards": rewards}
        run("grpo", config(GrpoConfig, policy, out, **changes, kl=kl))
        rows = log(out)
        last[kl] = rows[-1]["reward"] - rows[0]["reward"]
    assert last[0.0] > 0.3 and last[20.0] < last[0.0] / 2
