"""The run of every method that learns from its own samples; what differs is the loss.

A step: take problems, sample the policy, judge the samples, let the method make items of them, take `updates` passes of
`minibatches` optimiser steps over the items, give the engine the new weights. Everything that decides what comes next
(weights, optimiser, place in the curriculum, random state) is in the checkpoint, so a killed run goes on as if
unbroken.

With `peft` the policy is frozen weights and an adapter, the reference is the same weights without it, and the `Actor`
is handed the adapter alone. What teaches nothing, such as a group whose samples are all worth the same, is not read.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.errors import SetupError
from reason_engine.progress import OnProgress, silent
from reason_engine.training.common.distributed import Distributed, Weights
from reason_engine.training.common.encode import LearnedItem, Rollout
from reason_engine.training.common.models import load_model, save_model
from reason_engine.training.common.preflight import preflight_online
from reason_engine.training.common.run_folder import Checkpoint, Log
from reason_engine.training.memory import fit, keep_fit, model_size, online_need
from reason_engine.training.online.actor import Actor, Group
from reason_engine.training.online.environment import BatchRewards, Curriculum, check_endpoints
from reason_engine.training.online.recipe import Online
from reason_engine.training.watch.samples import Samples
from reason_engine.types import Path as SampledPath

if TYPE_CHECKING:
    from torch import Tensor

    from reason_engine.training.common.adapters import Adapted
    from reason_engine.training.common.policy import Policy

Config = TypeVar("Config", bound=Online)
Item = TypeVar("Item", bound=LearnedItem)
TRIED = 64
"""Problems that the rewards are tried on before a run."""
SAME = 1e-9
"""Totals that differ by less are the same."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of a step by prompt, and their rewards. `rollouts` and `paths` are all of them in order."""

    groups: Sequence[Group]
    rewards: BatchRewards

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for group in self.groups for rollout in group.rollouts]

    @property
    def paths(self) -> list[SampledPath]:
        return [path for group in self.groups for path in group.paths]

    def taught(self, config: Online) -> list[bool]:
        """Whether each sample counts: one that was cut does not, with `mask_truncated`."""
        return [not config.mask_truncated or path.finish_reason != "length" for path in self.paths]


class Learner(ABC, Generic[Config, Item]):
    """A method, made from its config, the policy that is sampled and where it began, frozen (the policy itself where
    that is not needed). `modules` are trained and kept, by name, each at the config's rate unless `rates` has one for
    it."""

    config: ClassVar[Any]
    summary: ClassVar[str]

    def __init__(self, config: Config, policy: Policy, reference: Policy) -> None:
        self._config, self._policy, self._reference = config, policy, reference
        self.modules: dict[str, Any] = {"policy": policy.model}
        self.rates: dict[str, float] = {}

    @property
    def packs(self) -> bool:
        """Whether rows are read without padding."""
        return self._policy.packs

    @classmethod
    def train(cls, config: Config, out: Path, tell: OnProgress = silent) -> dict[str, Any]:
        """Learn for `config.steps`; goes on from the checkpoint in `out` where there is one. The last metrics."""
        return train(config, out, tell, cls)

    def teaches(self, item: Item) -> bool:
        """Whether an item has any gradient; one that has none is not read, but counts in what losses are divided by."""
        return True

    @abstractmethod
    def items(self, batch: Batch) -> Sequence[Item]:
        """What is learned from a batch."""

    @abstractmethod
    def loss(self, items: Sequence[Item], whole: Sequence[Item]) -> tuple[Tensor, Mapping[str, float]]:
        """The part of the loss of `whole` (one optimiser step) that falls to `items`, with parts of its metrics."""


def train(config: Any, out: Path, tell: OnProgress, method: type[Learner[Any, Any]]) -> dict[str, Any]:
    """The whole run, from preflight to the model at the end."""
    found = [*preflight_online(config), *check_endpoints(config.reward_models)]
    actor = Actor(config)
    actor.check(Curriculum(config).take(TRIED))
    names = ", ".join(reward.verifier for reward in config.rewards)
    for line in (*found, f"rewards: {names}; each can judge the first {TRIED} problems"):
        tell({"note": line})
    import torch

    from reason_engine.training.common.forward import fast_precision

    torch.set_num_threads(config.threads or torch.get_num_threads())
    torch.manual_seed(config.seed)
    given, curriculum = config, Curriculum(config)
    need = online_need(config, model_size(config.model), config.judge and model_size(config.judge))
    config = config.model_copy(
        update={"precision": fast_precision(config.precision), "micro_tokens": fit(config, need)}
    )
    model, tokenizer = load_model(config.model)
    learner, adapted = make_learner(config, method, model)
    trained = [
        (f"{name}.{at}", parameter)
        for name, module in learner.modules.items()
        for at, parameter in module.named_parameters()
        if parameter.requires_grad
    ]
    tell({"note": f"{sum(parameter.numel() for _, parameter in trained):,} parameters are trained"})
    parameter_groups: list[dict[str, Any]] = [
        {"params": [p for p in module.parameters() if p.requires_grad], "full": learner.rates.get(name, config.rate)}
        for name, module in learner.modules.items()
    ]
    optimiser = torch.optim.AdamW(parameter_groups, weight_decay=config.weight_decay)
    checkpoint = Checkpoint(out, given, Weights(trained, Distributed()), [optimiser], curriculum)
    step, tokens = checkpoint.restore()
    keep_fit(given, config.pass_tokens)
    log = Log(out, config, 0, tokens, tell)
    kept = Samples(out, config.keep_samples, step, tell)
    metrics: dict[str, Any] = {}
    first, began = step, time.monotonic()
    with actor:
        if step or adapted:
            actor.take_weights(model, adapted)
        while step < config.steps:
            share = config.rate_at(step)
            for group in optimiser.param_groups:
                group["lr"] = group["full"] * share
            moment = time.monotonic()
            batch, sampled = gather(config, actor, curriculum, step, kept.keep)
            sampled["sample_seconds"] = time.monotonic() - moment
            learned = learn(config, learner, optimiser, batch, step + 1)
            actor.take_weights(model, adapted)
            sampled["learn_seconds"] = time.monotonic() - moment - sampled["sample_seconds"]
            step, tokens = step + 1, tokens + sampled.pop("drawn")
            metrics = {"step": step, "tokens": tokens, "rate": share, **learned, **sampled}
            if step % config.log_every == 0 or step == config.steps:
                spent = time.monotonic() - began
                log.write(metrics, spent / (step - first) * (config.steps - step))
            curriculum.record(sampled["reward"], step)
            if step % config.save_every == 0 and step < config.steps:
                checkpoint.save(step, tokens)
            if config.keep_every and step % config.keep_every == 0:
                at = out / f"at-{step}"
                adapted.save(at) if adapted else save_model(model, tokenizer, at)
    if adapted:
        adapted.finish(tokenizer, out, save_model)
    else:
        save_model(model, tokenizer, out)
    if ModelFolder(out).is_checkpoint:
        ModelFolder(out).carry_profile(ModelFolder(config.model))
    checkpoint.remove()
    log.close()
    return metrics


def make_learner(config: Any, method: type[Learner[Any, Any]], model: Any) -> tuple[Learner[Any, Any], Adapted | None]:
    """The method over this model as it begins, and the adapter that is trained, where there is one."""
    from reason_engine.training.common.adapters import Adapted
    from reason_engine.training.common.forward import shared, work_out_again
    from reason_engine.training.common.optimisers import freeze
    from reason_engine.training.common.policy import Policy

    at = config.temperature, config.precision
    if config.checkpointing:
        work_out_again(model)
    if config.peft is not None:
        start = Policy(shared(model).eval(), *at)
        adapted = Adapted(model, config.peft, config.model)
        adapted.check_served()
        policy = Policy(model, *at, body=adapted.body(config.precision))
        freeze(adapted.module, config.freeze)
        learner = method(config, policy, start)
        learner.modules["policy"] = adapted.module
        return learner, adapted
    freeze(model, config.freeze)
    policy = Policy(model, *at, config.compile)
    if not config.has_reference:
        return method(config, policy, policy), None
    start, _ = load_model(config.model)
    return method(config, policy, Policy(start.eval().requires_grad_(False), *at)), None


OnSamples = Callable[[int, Sequence[Group], Sequence[Sequence[float]]], None]
"""Hears of a step's samples: its number, the groups, their rewards."""


def gather(
    config: Online, actor: Actor, curriculum: Curriculum, step: int, seen: OnSamples = lambda *_: None
) -> tuple[Batch, dict[str, Any]]:
    """The samples of a step, and their metrics before any choice is made among them. `seen` is handed the first draw
    with its rewards.

    With `refill`, problems whose samples all got the same reward, which teach a group nothing, make room for others
    (dynamic sampling: Yu et al. 2025, arXiv:2503.14476, section 3.2).
    """
    done = step / max(1, config.steps - 1)
    groups, metrics, drawn = list[Group](), dict[str, Any](), 0
    rewards: BatchRewards | None = None
    for turn in range(config.refill + 1):
        tasks = curriculum.take(config.prompts)
        if not turn:
            actor.check(tasks)
        fresh = actor.sample(tasks, config.samples, f"{step}-{turn}")
        found = actor.judge(fresh, done)
        drawn += sum(len(path.token_ids) for group in fresh for path in group.paths)
        metrics = metrics or _metrics(fresh, found, curriculum.stage)
        if not turn:
            seen(step + 1, fresh, found.totals())
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
    totals, paths = rewards.totals(), Batch(groups, rewards).paths
    flat = [value for group in totals for value in group]
    mean = sum(flat) / len(flat)
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


def learn(config: Online, learner: Learner[Any, Any], optimiser: Any, batch: Batch, step: int) -> dict[str, float]:
    """All optimiser steps on one batch: the means of their metrics. One that would teach nothing is not taken."""
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
            taught = [item for item in whole if learner.teaches(item)]
            if not taught:
                continue
            for places in micro_batch_indices(taught, config.pass_tokens, packed=learner.packs):
                loss, parts = learner.loss([taught[place] for place in places], whole)
                loss.backward()
                for name, value in {"loss": loss.item(), **parts}.items():
                    sums[name] += value
            norm = torch.nn.utils.clip_grad_norm_(trained, config.clip_norm).item()
            if not math.isfinite(sums["loss"] + norm):
                raise SetupError(f"step {step}: the loss is {sums['loss']}, its gradient {norm}; lower the rate")
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            size = torch.stack([p.detach().norm() for p in trained]).norm().item()
            if not math.isfinite(size):
                raise SetupError(f"step {step}: the weights have grown beyond all bounds; lower the rate")
            sums["norm"] += norm
            passes += 1
    return {"loss": 0.0} | {name: value / passes for name, value in sums.items()}
