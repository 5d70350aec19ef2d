"""The shape of every method that learns from its own samples; what differs is the loss.

A step: take problems, sample the policy, judge the samples, let the method make items of them, take `updates` passes of
`minibatches` optimiser steps over the items, give the engine the new weights. Everything that decides what comes next
(weights, optimiser, place in the curriculum, random state) is in the checkpoint, so a killed run goes on as if
unbroken.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.errors import SetupError
from reason_engine.progress import OnProgress
from reason_engine.training.common.models import load_model, save_model
from reason_engine.training.common.preflight import preflight_online
from reason_engine.training.common.run_folder import Checkpoint, Log
from reason_engine.training.online.curriculum import Curriculum
from reason_engine.training.online.recipe import Online
from reason_engine.training.online.reward_scorer import BatchRewards, check_endpoints
from reason_engine.training.online.rollout import Actor, Group
from reason_engine.types import Path as SampledPath

if TYPE_CHECKING:
    from torch import Tensor

    from reason_engine.training.common.policy import LearnedItem, Policy, Rollout

Item = TypeVar("Item", bound="LearnedItem")
TRIED = 64
"""Problems that the rewards are tried on before a run."""
SAME = 1e-9
"""Totals that differ by less are the same."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of a step by prompt, and their rewards."""

    groups: Sequence[Group]
    rewards: BatchRewards

    @property
    def rollouts(self) -> list[Rollout]:
        """All samples in order."""
        return [rollout for group in self.groups for rollout in group.rollouts]

    @property
    def paths(self) -> list[SampledPath]:
        """All samples in order."""
        return [path for group in self.groups for path in group.paths]


class Learner(Protocol[Item]):
    """A method: items from a batch, and the loss of some of them. `policy` is what is sampled, `modules` what is
    trained and kept, by name, each at the config's rate unless `rates` has one for it."""

    policy: Policy
    modules: Mapping[str, Any]
    rates: Mapping[str, float]

    def items(self, batch: Batch) -> Sequence[Item]: ...

    def loss(self, items: Sequence[Item], whole: Sequence[Item]) -> tuple[Tensor, Mapping[str, float]]:
        """The part of the loss of `whole` (one optimiser step) that falls to `items`, with parts of its metrics."""
        ...


def train(
    config: Online, out: Path, tell: OnProgress, make: Callable[[Policy, Policy], Learner[Any]]
) -> dict[str, Any]:
    """Learn for `config.steps`; goes on from the checkpoint in `out` where there is one. The last metrics.

    `make` gets the policy and a frozen copy of where it began.
    """
    found = [*preflight_online(config), *check_endpoints(config.reward_models)]
    actor = Actor(config)
    actor.check(Curriculum(config).take(TRIED))
    names = ", ".join(reward.verifier for reward in config.rewards)
    for line in (*found, f"rewards: {names}; each can judge the first {TRIED} problems"):
        tell({"note": line})
    import torch

    from reason_engine.training.common.optimisers import freeze
    from reason_engine.training.common.policy import Policy

    torch.set_num_threads(config.threads or torch.get_num_threads())
    torch.manual_seed(config.seed)
    curriculum = Curriculum(config)
    (model, tokenizer), (start, _) = load_model(config.model), load_model(config.model)
    freeze(model, config.freeze)
    learner = make(
        Policy(model, config.temperature, config.precision, config.compile),
        Policy(start.eval().requires_grad_(False), config.temperature, config.precision),
    )
    kept = torch.nn.ModuleDict(learner.modules)
    parameter_groups: list[dict[str, Any]] = [
        {
            "params": [p for p in module.parameters() if p.requires_grad],
            "full": learner.rates.get(name, config.rate),
        }
        for name, module in learner.modules.items()
    ]
    optimiser = torch.optim.AdamW(parameter_groups, weight_decay=config.weight_decay)
    checkpoint = Checkpoint(out / "checkpoint", config)
    step, tokens = checkpoint.restore(kept, [optimiser], curriculum)
    board = out / "tensorboard" if config.tensorboard else None
    log = Log(out / "log.jsonl", 0, tokens, tell, board)
    metrics: dict[str, Any] = {}
    first, began = step, time.monotonic()
    with actor:
        if step:
            actor.take_weights(model.state_dict())
        while step < config.steps:
            share = config.rate_at(step)
            for group in optimiser.param_groups:
                group["lr"] = group["full"] * share
            moment = time.monotonic()
            batch, sampled = gather(config, actor, curriculum, step)
            sampled["sample_seconds"] = time.monotonic() - moment
            learned = learn(config, learner, optimiser, batch, step + 1)
            actor.take_weights(model.state_dict())
            sampled["learn_seconds"] = time.monotonic() - moment - sampled["sample_seconds"]
            step, tokens = step + 1, tokens + sampled.pop("drawn")
            metrics = {"step": step, "tokens": tokens, "rate": share, **learned, **sampled}
            if step % config.log_every == 0 or step == config.steps:
                spent = time.monotonic() - began
                log.write(metrics, spent / (step - first) * (config.steps - step))
            curriculum.record(sampled["reward"], step)
            if step % config.save_every == 0 and step < config.steps:
                checkpoint.save(kept, [optimiser], curriculum, step, tokens)
            if config.keep_every and step % config.keep_every == 0:
                save_model(model, tokenizer, out / f"at-{step}")
    save_model(model, tokenizer, out)
    ModelFolder(out).carry_profile(ModelFolder(config.model))
    checkpoint.remove()
    return metrics


def gather(config: Online, actor: Actor, curriculum: Curriculum, step: int) -> tuple[Batch, dict[str, Any]]:
    """The samples of a step, and their metrics before any choice is made among them.

    With `refill`, problems whose samples all got the same reward, which teach a group nothing, make room for others
    (dynamic sampling: Yu et al. 2025, arXiv:2503.14476, section 3.2).
    """
    done = step / max(1, config.steps - 1)
    groups: list[Group] = []
    rewards: BatchRewards | None = None
    metrics: dict[str, Any] = {}
    drawn = 0
    for turn in range(config.refill + 1):
        tasks = curriculum.take(config.prompts)
        if not turn:
            actor.check(tasks)
        fresh = actor.sample(tasks, config.samples, f"{step}-{turn}")
        found = actor.judge(fresh, done)
        drawn += sum(len(path.token_ids) for group in fresh for path in group.paths)
        metrics = metrics or _metrics(fresh, found, curriculum.stage)
        if config.refill:
            kept = [p for p, values in enumerate(found.totals()) if max(values) - min(values) > SAME]
            fresh, found = [fresh[p] for p in kept], found.select(kept)
        groups, rewards = groups + fresh, found if rewards is None else rewards + found
        if len(groups) >= config.prompts:
            break
    assert rewards is not None
    first = range(min(config.prompts, len(groups)))
    return Batch(groups[: config.prompts], rewards.select(first)), {**metrics, "drawn": drawn}


def _metrics(groups: Sequence[Group], rewards: BatchRewards, stage: int) -> dict[str, Any]:
    totals = rewards.totals()
    flat = [value for group in totals for value in group]
    mean = sum(flat) / len(flat)
    paths = [path for group in groups for path in group.paths]
    return {
        "reward": mean,
        "reward_std": math.sqrt(sum((value - mean) ** 2 for value in flat) / len(flat)),
        **{f"reward_{name}": value for name, value in rewards.means.items()},
        "flat": sum(max(group) - min(group) <= SAME for group in totals) / len(totals),
        "length": sum(len(path.token_ids) for path in paths) / len(paths),
        "truncated": sum(path.finish_reason == "length" for path in paths) / len(paths),
        "unjudged": rewards.unjudged,
        "stage": stage,
    }


def learn(config: Online, learner: Learner[Any], optimiser: Any, batch: Batch, step: int) -> dict[str, float]:
    """All optimiser steps on one batch: the means of their metrics."""
    import torch

    from reason_engine.training.common.policy import micro_batch_indices

    sums: defaultdict[str, float] = defaultdict(float)
    items = learner.items(batch) if batch.groups else []
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    each, passes = -(-len(items) // config.minibatches), 0
    for _ in range(config.updates if items else 0):
        one = config.minibatches == 1
        order = list(range(len(items))) if one else torch.randperm(len(items)).tolist()
        for at in range(0, len(order), each):
            whole = [items[place] for place in order[at : at + each]]
            for places in micro_batch_indices(whole, config.micro_tokens):
                loss, parts = learner.loss([whole[place] for place in places], whole)
                loss.backward()
                for name, value in {"loss": loss.item(), **parts}.items():
                    sums[name] += value
            norm = torch.nn.utils.clip_grad_norm_(trained, config.clip_norm).item()
            if not math.isfinite(sums["loss"] + norm):
                raise SetupError(
                    f"step {step}: the loss is {sums['loss']}, its gradient {norm}; lower the rate"
                )
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            size = torch.stack([p.detach().norm() for p in trained]).norm().item()
            if not math.isfinite(size):
                raise SetupError(f"step {step}: the weights have grown beyond all bounds; lower the rate")
            sums["norm"] += norm
            passes += 1
    return {"loss": 0.0} | {name: value / passes for name, value in sums.items()}
