"""Hands a GRPO or PPO run over to verl (HybridFlow, Sheng et al. 2024, arXiv:2409.19256), for many GPUs.

The job is a folder: data, the reward as a function, verl's overrides one a line, and three scripts: `check.sh` lets
verl itself compose and validate the config and calls the reward, `run.sh` trains, `merge.sh` makes a Hugging Face
checkpoint of the last save, which verl's own saves are not. verl runs in an interpreter of its own
(REASON_VERL_PYTHON), since its pins clash with ours; this package must be importable there, without its extras. What
verl has no place for is refused, not dropped.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from reason_engine.data.formats.readers import read_rows
from reason_engine.data.formats.rows import Reference, turn_json
from reason_engine.data.mixture import Stream
from reason_engine.errors import SetupError
from reason_engine.jsonl import JsonLines
from reason_engine.profile import read_profile
from reason_engine.training.online.environment import RewardScorer, TrainingProblem, answer_of, training_problem
from reason_engine.training.online.grpo import GrpoConfig
from reason_engine.training.online.ppo import PpoConfig
from reason_engine.training.online.recipe import Online, Reward
from reason_engine.types import Path as SampledPath
from reason_engine.types import Problem

VALIDATION, MOST = 256, 100_000
AGGREGATES = {"token": "token-mean", "sequence": "seq-mean-token-mean", "constant": "seq-mean-token-sum-norm"}


def write_job(config: Any, *, gpus: int = 8, nodes: int = 1, prompt_tokens: int = 1024) -> Path:
    """Write the job into `out`/verl; the folder. Raises SetupError naming what cannot be handed over."""
    if not isinstance(config, GrpoConfig | PpoConfig):
        raise SetupError("--hand-over verl: only grpo and ppo are handed over")
    _refuse(config)
    folder = (config.out / "verl").absolute()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, tasks in _split(config).items():
        JsonLines(folder / "data" / f"{name}.jsonl").rewrite(_row(task, number) for number, task in enumerate(tasks))
    dumped = config.model_dump(mode="json", include={"rewards"})
    stated = {"model": str(config.model.absolute()), **dumped}
    (folder / "rewards.json").write_text(json.dumps(stated, indent=2) + "\n", "utf-8")
    settings = overrides(config, folder, gpus, nodes, prompt_tokens)
    lines = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    (folder / "overrides.txt").write_text("\n".join(lines) + "\n", "utf-8")
    for name, text in FILES.items():
        (folder / name).write_text(text, "utf-8")
        (folder / name).chmod(0o755 if name.endswith(".sh") else 0o644)
    return folder


def overrides(
    config: GrpoConfig | PpoConfig, folder: Path, gpus: int, nodes: int, prompt_tokens: int
) -> dict[str, Any]:
    """The keys of verl that differ from its defaults, or that must not change with them."""
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    most = max(config.pass_tokens, prompt_tokens + config.max_tokens)
    model = str(config.model.absolute())
    return {
        "data.train_files": str(folder / "data" / "train.jsonl"),
        "data.val_files": str(folder / "data" / "validation.jsonl"),
        "data.train_batch_size": config.prompts,
        "data.max_prompt_length": prompt_tokens,
        "data.max_response_length": config.max_tokens,
        "data.filter_overlong_prompts": True,
        "data.seed": config.seed,
        "actor_rollout_ref.model.path": model,
        f"{actor}.optim.lr": config.rate,
        f"{actor}.optim.weight_decay": config.weight_decay,
        f"{actor}.optim.lr_warmup_steps": config.warmup,
        f"{actor}.ppo_epochs": config.updates,
        f"{actor}.ppo_mini_batch_size": config.prompts // config.minibatches,
        f"{actor}.use_dynamic_bsz": True,
        f"{actor}.ppo_max_token_len_per_gpu": most,
        f"{actor}.grad_clip": config.clip_norm,
        f"{actor}.clip_ratio": config.clip[1],
        f"{actor}.clip_ratio_low": config.clip[0],
        f"{actor}.clip_ratio_high": config.clip[1],
        f"{rollout}.name": "vllm",
        f"{rollout}.n": config.samples,
        f"{rollout}.temperature": config.temperature,
        f"{rollout}.tensor_model_parallel_size": 1,
        **(_grpo(config, actor) if isinstance(config, GrpoConfig) else _ppo(config, actor, model, most)),
        "reward.custom_reward_function.path": str(folder / "reward.py"),
        "reward.custom_reward_function.name": "compute_score",
        "trainer.logger": ["console"],
        "trainer.project_name": "reason-engine",
        "trainer.experiment_name": config.out.name or "run",
        "trainer.default_local_dir": str(folder / "checkpoints"),
        "trainer.save_freq": config.save_every,
        "trainer.test_freq": config.save_every,
        "trainer.resume_mode": "auto",
        "trainer.total_epochs": config.steps,  # more than enough: total_training_steps ends the run
        "trainer.total_training_steps": config.steps,
        "trainer.n_gpus_per_node": gpus,
        "trainer.nnodes": nodes,
    }


def _grpo(config: GrpoConfig, actor: str) -> dict[str, Any]:
    return {
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": config.scale == "group",
        "algorithm.use_kl_in_reward": False,
        f"{actor}.loss_agg_mode": AGGREGATES[config.over],
        f"{actor}.use_kl_loss": config.kl > 0,
        f"{actor}.kl_loss_coef": config.kl,
        f"{actor}.kl_loss_type": "low_var_kl",
    }


def _ppo(config: PpoConfig, actor: str, model: str, most: int) -> dict[str, Any]:
    return {
        "algorithm.adv_estimator": "gae",
        "algorithm.gamma": config.gamma,
        "algorithm.lam": config.decay,
        "algorithm.use_kl_in_reward": config.kl > 0,
        "algorithm.kl_ctrl.kl_coef": config.kl,
        f"{actor}.loss_agg_mode": "token-mean",
        f"{actor}.use_kl_loss": False,
        "critic.model.path": model,
        "critic.optim.lr": config.value_rate or config.rate,
        "critic.cliprange_value": config.value_clip,
        "critic.ppo_max_token_len_per_gpu": most,
    }


def _refuse(config: GrpoConfig | PpoConfig) -> None:
    """Name the first thing that verl has no place for."""
    cannot = {
        "curriculum": bool(config.curriculum),
        "refill": config.refill > 0,
        "mask_truncated": config.mask_truncated,
        "freeze": bool(config.freeze),
        "final": config.final != 1,
        "judge": config.judge is not None or bool(config.reward_models),
        "rewards.process": any(reward.process for reward in config.rewards),
        "rewards.last": any(reward.last is not None for reward in config.rewards),
        "scale: batch": isinstance(config, GrpoConfig) and config.scale == "batch",
    }
    if name := next((name for name, found in cannot.items() if found), None):
        raise SetupError(f"--hand-over verl: {name} cannot be handed over; take it out of the recipe")
    if config.prompts % config.minibatches:
        raise SetupError(f"--hand-over verl: prompts must be a multiple of minibatches ({config.minibatches})")


def _split(config: Online) -> dict[str, list[TrainingProblem]]:
    """Rows to train on, and others to validate on."""
    count = min(MOST, config.prompts * config.steps)
    if config.mixture:
        drawn = [training_problem(one) for one in islice(Stream(config.mixture, config.seed), count + VALIDATION)]
    else:
        assert config.data is not None
        drawn = [training_problem(row) for row in read_rows(config.data, Reference, format=config.format)]
    held = min(VALIDATION, max(1, len(drawn) // 10))
    if len(drawn) - held < config.prompts:
        raise SetupError(f"--hand-over verl: {len(drawn)} problems are too few for prompts: {config.prompts} a step")
    return {"train": drawn[:-held], "validation": drawn[-held:]}


def _row(task: TrainingProblem, number: int) -> dict[str, Any]:
    """As verl's own reader wants it; what the reward needs besides stands in `extra_info`."""
    problem, meta = task.problem, json.dumps(dict(task.problem.meta))
    return {
        "data_source": task.family or "file",
        "prompt": [turn_json(turn) for turn in problem.turns()],
        "reward_model": {"style": "rule", "ground_truth": problem.reference},
        "extra_info": {"index": number, "question": problem.question, "bare": task.bare, "meta": meta},
    }


class VerlReward:
    """What verl calls for each sample, with the fields of its row: the recipe's verifiers on one finished text, and the
    weighted sum of their rewards."""

    def __init__(self, file: Path) -> None:
        stated = json.loads(file.read_text("utf-8"))
        self._profile = read_profile(Path(stated["model"]))
        self._thread = ThreadPoolExecutor(1)
        self._rewards = [Reward.model_validate(reward) for reward in stated["rewards"]]

    def __call__(self, source: str, text: str, reference: str | None, extra: Mapping[str, Any]) -> float:
        meta = json.loads(extra.get("meta") or "{}")
        problem = Problem(str(extra.get("question", "")), reference=reference, meta=meta)
        task = TrainingProblem(problem, "" if source == "file" else source, bool(extra.get("bare")))
        answer = answer_of(self._profile, task, text.rpartition("</think>")[2])
        path = SampledPath(0, "", text, answer=answer)
        # verl may call from within a loop of its own.
        return self._thread.submit(asyncio.run, self._score(task, path)).result()

    async def _score(self, task: TrainingProblem, path: SampledPath) -> float:
        scorer = RewardScorer(self._rewards, self._profile, None)
        try:
            return (await scorer.score([(task, [path])], 0.0)).outcome[0][0]
        finally:
            await scorer.equality.close()


FILES = {
    "reward.py": '''"""What verl calls for each sample."""

from pathlib import Path

from reason_engine.training.online.verl import VerlReward

SCORER = VerlReward(Path(__file__).with_name("rewards.json"))


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **more):
    return SCORER(data_source, solution_str, ground_truth, extra_info or {})
''',
    "check.sh": """#!/usr/bin/env bash
# verl composes the config and validates it as its trainer does, and calls the reward once. No GPU is needed.
set -euo pipefail
exec "${REASON_VERL_PYTHON:-python}" "$(dirname "$0")/check.py"
""",
    "check.py": '''"""verl composes this job's config, validates it as its trainer does, and calls the reward once."""

import json
from pathlib import Path

from hydra import compose, initialize_config_module
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

HERE = Path(__file__).parent

with initialize_config_module("verl.trainer.config", version_base=None):
    config = compose("ppo_trainer", overrides=(HERE / "overrides.txt").read_text("utf-8").splitlines())
validate_config(config, need_reference_policy(config), need_critic(config))
row = json.loads((HERE / "data" / "validation.jsonl").read_text("utf-8").splitlines()[0])
right = row["reward_model"]["ground_truth"]
reward = get_custom_reward_fn(config)
given = reward(row["data_source"], f"Answer: {right}", right, row["extra_info"])
print(f"[reward] 'Answer: {right}' is worth {given}")
''',
    "run.sh": """#!/usr/bin/env bash
# Trains; run it again after a kill and it goes on from the last save.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mapfile -t overrides < "$here/overrides.txt"
exec "${REASON_VERL_PYTHON:-python}" -m verl.trainer.main_ppo "${overrides[@]}" "$@"
""",
    "merge.sh": """#!/usr/bin/env bash
# The last save as a Hugging Face checkpoint in merged/, which `reason serve` loads.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
step=$(cat "$here/checkpoints/latest_checkpointed_iteration.txt")
exec "${REASON_VERL_PYTHON:-python}" -m verl.model_merger merge --backend fsdp \\
    --local_dir "$here/checkpoints/global_step_$step/actor" --target_dir "$here/merged" "$@"
""",
}
