"""A run handed over to verl: the job's files, what it says, its reward, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from reason_engine.cli import train
from reason_engine.errors import SetupError
from reason_engine.training.online.grpo import GrpoConfig
from reason_engine.training.online.ppo import PpoConfig
from reason_engine.training.online.rloo import RlooConfig
from reason_engine.training.online.verl import write_job
from tests.training.online import WORDS, config

MIXED = [*WORDS, {"family": "countdown", "share": 1}]
REWARDS = [
    {"verifier": "exact", "families": ["words"]},
    {"verifier": "countdown", "families": ["countdown"], "weight": 2.0},
]


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in file.read_text().splitlines():
        key, _, value = line.partition("=")
        assert key not in found
        found[key] = json.loads(value)
    return found


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_grpo_job(policy: Path, tmp_path: Path) -> None:
    made = config(
        GrpoConfig, policy, tmp_path / "my run", kl=0.02, over="sequence", scale="none", minibatches=2, steps=9,
        mixture=MIXED, rewards=REWARDS, save_every=3,
    )  # fmt: skip
    folder = write_job(made, gpus=4, nodes=2)
    said = read(folder / "overrides.txt")
    assert said["algorithm.adv_estimator"] == "grpo" and not said["algorithm.norm_adv_by_std_in_grpo"]
    assert said["actor_rollout_ref.rollout.n"] == 4 and said["data.train_batch_size"] == 2
    assert said["actor_rollout_ref.actor.ppo_mini_batch_size"] == 1
    assert said["actor_rollout_ref.actor.use_kl_loss"] and said["actor_rollout_ref.actor.kl_loss_coef"] == 0.02
    assert said["actor_rollout_ref.actor.loss_agg_mode"] == "seq-mean-token-mean"
    assert (said["trainer.save_freq"], said["trainer.total_training_steps"]) == (3, 9)
    assert (said["trainer.n_gpus_per_node"], said["trainer.nnodes"]) == (4, 2)
    for key in ("data.train_files", "data.val_files", "reward.custom_reward_function.path"):
        assert Path(said[key]).is_file() and Path(said[key]).is_absolute()
    train_rows, held = rows(folder / "data" / "train.jsonl"), rows(folder / "data" / "validation.jsonl")
    assert len(train_rows) >= 18 and held and held[0] not in train_rows
    assert train_rows[0]["prompt"][-1]["role"] == "user" and train_rows[0]["reward_model"]["ground_truth"]
    for script in ("run.sh", "check.sh", "merge.sh"):
        subprocess.run(["bash", "-n", str(folder / script)], check=True)
    assert "verl.model_merger merge --backend fsdp" in (folder / "merge.sh").read_text()


def test_the_scripts_call_verl_with_the_overrides(policy: Path, tmp_path: Path) -> None:
    folder = write_job(config(GrpoConfig, policy, tmp_path / "a, b"))
    stub = tmp_path / "python"
    stub.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    given = {
        name: subprocess.run(
            ["bash", str(folder / name), "more"],
            env={"REASON_VERL_PYTHON": str(stub), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for name in ("run.sh", "check.sh")
    }
    lines = (folder / "overrides.txt").read_text().splitlines()
    assert given["run.sh"] == ["-m", "verl.trainer.main_ppo", *lines, "more"]
    assert given["check.sh"] == [str(folder / "check.py")]


VERL = os.environ.get("REASON_VERL_PYTHON")


@pytest.mark.slow
@pytest.mark.skipif(not VERL, reason="REASON_VERL_PYTHON names no interpreter with verl")
@pytest.mark.parametrize("kind", [GrpoConfig, PpoConfig])
def test_verl_itself_accepts_the_job_and_refuses_a_broken_one(policy: Path, tmp_path: Path, kind: Any) -> None:
    folder = write_job(config(kind, policy, tmp_path, steps=9, mixture=WORDS, rewards=[{"verifier": "exact"}]))

    def checked() -> subprocess.CompletedProcess[str]:
        where = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        return subprocess.run(["bash", str(folder / "check.sh")], env=where, capture_output=True, text=True)

    done = checked()
    assert done.returncode == 0, done.stderr
    assert "All configuration checks passed" in done.stdout and "is worth 1.0" in done.stdout
    overrides = folder / "overrides.txt"
    whole = overrides.read_text()
    for line, said in (
        ("data.no_such_key=1", "no_such_key"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=1000", "mini_batch_size"),
    ):
        overrides.write_text(f"{whole}{line}\n")
        broken = checked()
        assert broken.returncode and said in broken.stderr


def test_a_ppo_job(policy: Path, tmp_path: Path) -> None:
    said = read(write_job(config(PpoConfig, policy, tmp_path, kl=0.0, value_rate=2e-5)) / "overrides.txt")
    assert said["algorithm.adv_estimator"] == "gae" and said["algorithm.lam"] == 0.95
    assert said["critic.optim.lr"] == 2e-5 and said["critic.model.path"] == str(policy)
    assert not said["algorithm.use_kl_in_reward"] and not said["actor_rollout_ref.actor.use_kl_loss"]
    assert said["actor_rollout_ref.actor.ppo_epochs"] == 2


def test_the_reward_is_the_recipe_s(policy: Path, tmp_path: Path) -> None:
    folder = write_job(config(GrpoConfig, policy, tmp_path, steps=30, mixture=MIXED, rewards=REWARDS))
    spec = importlib.util.spec_from_file_location("job_reward", folder / "reward.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    by_family = {row["data_source"]: row for row in rows(folder / "data" / "train.jsonl")}
    assert set(by_family) == {"words", "countdown"}
    for family, worth in (("words", 1.0), ("countdown", 2.0)):
        row = by_family[family]
        right = row["reward_model"]["ground_truth"]
        for text, wanted in ((f"so\nAnswer: {right}", worth), ("Answer: 0", 0.0), ("no idea", 0.0)):
            assert module.compute_score(family, text, right, row["extra_info"], other=1) == wanted


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"curriculum": [{"params": {}}]}, "curriculum"),
        ({"refill": 1}, "refill"),
        ({"freeze": ["mlp"]}, "freeze"),
        ({"final": 0.5}, "final"),
        ({"judge": "m"}, "judge"),
        ({"scale": "batch"}, "scale: batch"),
        ({"rewards": [{"verifier": "process-rules", "process": True}]}, r"rewards\.process"),
        ({"rewards": [{"verifier": "exact", "last": 0.0}]}, r"rewards\.last"),
        ({"prompts": 3, "minibatches": 2}, "multiple of minibatches"),
    ],
)
def test_what_verl_has_no_place_for_is_refused(
    policy: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SetupError, match=said):
        write_job(config(GrpoConfig, policy, tmp_path / "o", **changes))
    assert not (tmp_path / "o").exists()


def test_other_methods_and_too_few_problems_are_refused(policy: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="only grpo and ppo"):
        write_job(config(RlooConfig, policy, tmp_path / "o"))
    data = tmp_path / "d.jsonl"
    data.write_text('{"prompt": "1 + 1?", "answer": "2"}\n')
    with pytest.raises(SetupError, match="too few"):
        write_job(config(GrpoConfig, policy, tmp_path / "o", mixture=[], data=data))


def test_the_command(policy: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    train.add_to(app)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"out: {tmp_path / 'o'}\nmodel: {policy}\nsteps: 3\nprompts: 2\n"
        "mixture: [{family: value, share: 1}]\nrewards: [{verifier: exact}]\n"
    )
    done = CliRunner().invoke(app, ["grpo", "--config", str(recipe), "--hand-over", "verl", "--gpus", "2"])
    assert done.exit_code == 0 and "run.sh" in done.stdout
    assert read(tmp_path / "o" / "verl" / "overrides.txt")["trainer.n_gpus_per_node"] == 2
    refused = CliRunner().invoke(app, ["grpo", "--config", str(recipe), "--hand-over", "slime"])
    assert isinstance(refused.exception, SetupError)
