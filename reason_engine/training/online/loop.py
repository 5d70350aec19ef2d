"""The run of every method that learns from its own samples; what differs is the loss.

A step: take problems, sample the policy, judge the samples, let the method make items of them, take `updates` passes of
`minibatches` optimiser steps over the items, give the engine the new weights. Everything that decides what comes next
(weights, optimiser, place in the curriculum, random state) is in the checkpoint, so a killed run goes on as if
unbroken.

The `Actor` samples the policy as it is now: the embedded engine in this process, in fp32 like the trainer, so that what
it draws from and what the trainer measures differ by rounding only. A prompt is read once for all its samples.
"""

from __future__ import annotations

import asyncio
import math
import time
import zlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from reason_engine.contracts import Powers
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.embedded.front import Embedded
from reason_engine.errors import SetupError, first_error
from reason_engine.profile import read_profile
from reason_engine.progress import OnProgress, silent
from reason_engine.runtime.drawn import PartialPath, collect
from reason_engine.runtime.prompts import PromptCache
from reason_engine.settings import load_settings
from reason_engine.training.common.encode import LearnedItem, Rollout
from reason_engine.training.common.models import load_model, save_model
from reason_engine.training.common.preflight import preflight_online
from reason_engine.training.common.run_folder import Checkpoint, Log
from reason_engine.training.online.environment import (
    BatchRewards,
    Curriculum,
    RewardScorer,
    TrainingProblem,
    answer_of,
    check_endpoints,
)
from reason_engine.training.online.recipe import Online
from reason_engine.training.watch.samples import Samples
from reason_engine.types import GenerateRequest, Prompt, Sampling
from reason_engine.types import Path as SampledPath
from reason_engine.verifiers.code import Sandbox

if TYPE_CHECKING:
    from torch import Tensor

    from reason_engine.training.common.policy import Policy

Config = TypeVar("Config", bound=Online)
Item = TypeVar("Item", bound=LearnedItem)
TRIED = 64
"""Problems that the rewards are tried on before a run."""
SAME = 1e-9
"""Totals that differ by less are the same."""


@dataclass(frozen=True, slots=True)
class Group:
    """A problem and the samples of its prompt, in the order of their seeds."""

    task: TrainingProblem
    paths: tuple[SampledPath, ...]

    @property
    def rollouts(self) -> list[Rollout]:
        return [Rollout(path.prompt_ids, path.token_ids) for path in self.paths]


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
    """A method, made from its config, the policy that is sampled and a frozen copy of where it began. `modules` are
    trained and kept, by name, each at the config's rate unless `rates` has one for it."""

    config: ClassVar[Any]
    summary: ClassVar[str]

    def __init__(self, config: Config, policy: Policy, reference: Policy) -> None:
        self._config, self._policy, self._reference = config, policy, reference
        self.modules: dict[str, Any] = {"policy": policy.model}
        self.rates: dict[str, float] = {}

    @classmethod
    def train(cls, config: Config, out: Path, tell: OnProgress = silent) -> dict[str, Any]:
        """Learn for `config.steps`; goes on from the checkpoint in `out` where there is one. The last metrics."""
        return train(config, out, tell, cls)

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

    from reason_engine.training.common.optimisers import freeze
    from reason_engine.training.common.policy import Policy

    torch.set_num_threads(config.threads or torch.get_num_threads())
    torch.manual_seed(config.seed)
    curriculum = Curriculum(config)
    (model, tokenizer), (start, _) = load_model(config.model), load_model(config.model)
    freeze(model, config.freeze)
    learner = method(
        config,
        Policy(model, config.temperature, config.precision, config.compile),
        Policy(start.eval().requires_grad_(False), config.temperature, config.precision),
    )
    parameter_groups: list[dict[str, Any]] = [
        {"params": [p for p in module.parameters() if p.requires_grad], "full": learner.rates.get(name, config.rate)}
        for name, module in learner.modules.items()
    ]
    optimiser = torch.optim.AdamW(parameter_groups, weight_decay=config.weight_decay)
    checkpoint = Checkpoint(out, config, torch.nn.ModuleDict(learner.modules), [optimiser], curriculum)
    step, tokens = checkpoint.restore()
    log = Log(out, config, 0, tokens, tell)
    kept = Samples(out, config.keep_samples, step, tell)
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
            batch, sampled = gather(config, actor, curriculum, step, kept.keep)
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
                checkpoint.save(step, tokens)
            if config.keep_every and step % config.keep_every == 0:
                save_model(model, tokenizer, out / f"at-{step}")
    save_model(model, tokenizer, out)
    ModelFolder(out).carry_profile(ModelFolder(config.model))
    checkpoint.remove()
    log.close()
    return metrics


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
                raise SetupError(f"step {step}: the loss is {sums['loss']}, its gradient {norm}; lower the rate")
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            size = torch.stack([p.detach().norm() for p in trained]).norm().item()
            if not math.isfinite(size):
                raise SetupError(f"step {step}: the weights have grown beyond all bounds; lower the rate")
            sums["norm"] += norm
            passes += 1
    return {"loss": 0.0} | {name: value / passes for name, value in sums.items()}


class Actor:
    """The policy's engine and the rewards. Opened and closed with `with`."""

    def __init__(self, config: Online) -> None:
        """Raises ModelLoadError for a folder that the embedded engine does not run, SetupError where programs are to
        be run on a machine that cannot limit them."""
        threads, heads = config.threads or 0, config.reward_models
        self._config, judge = config, None
        self._engine = Embedded(config.model, inline=True, dtype="float32", threads=threads)
        self._engines = [self._engine]
        if judged_by := config.judge or (config.model if heads else None):
            keys = load_settings().reward_keys
            judge = Embedded(judged_by, inline=True, threads=threads, rewards=heads, reward_keys=keys)
            self._engines.append(judge)
        self._profile = read_profile(config.model)
        sandbox = Sandbox() if config.allow_code else None
        self._scorer = RewardScorer(config.rewards, self._profile, judge, Powers(sandbox))
        self._runner = asyncio.Runner()
        if sandbox is not None and (reason := self._runner.run(sandbox.probe())):
            raise SetupError(f"allow_code: programs cannot be limited on this machine: {reason}")

    def __enter__(self) -> Actor:
        try:
            for engine in self._engines:
                self._runner.run(engine.start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        for opened in (*self._engines, self._scorer.equality):
            self._runner.run(opened.close())
        self._runner.close()

    def take_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Sample from these weights from now on."""
        self._runner.run(self._engine.take_weights(weights))

    def check(self, problems: Sequence[TrainingProblem]) -> None:
        """Raises SetupError naming the reward that cannot judge one of these problems. Nothing is generated."""
        self._scorer.check(problems)

    def sample(self, tasks: Sequence[TrainingProblem], count: int, place: str) -> list[Group]:
        """`count` samples of each problem; `place` and the run's seed decide what is drawn. Raises SetupError for a
        prompt that leaves no room for an answer."""
        cache = PromptCache(self._engine)
        prompts = [cache.prompt(cache.render(task.problem.turns())) for task in tasks]
        most, context = self._config.max_tokens, self._engine.info.context
        for task, prompt in zip(tasks, prompts, strict=True):
            if len(prompt.ids) > context - most:
                raise SetupError(
                    f"max_tokens: a prompt of {len(prompt.ids)} tokens leaves no room for {most} in a "
                    f"context of {context}: {task.problem.question[:60]!r}"
                )
        return self._runner.run(self._sample_all(tasks, prompts, count, place))

    def judge(self, groups: Sequence[Group], done: float) -> BatchRewards:
        """The rewards of all samples when this share of the run is done."""
        return self._runner.run(self._scorer.score([(group.task, group.paths) for group in groups], done))

    async def _sample_all(
        self, tasks: Sequence[TrainingProblem], prompts: Sequence[Prompt], count: int, place: str
    ) -> list[Group]:
        async def one(number: int, task: TrainingProblem, prompt: Prompt) -> Group:
            sampling = Sampling(
                max_tokens=self._config.max_tokens,
                temperature=self._config.temperature,
                seed=zlib.crc32(f"{self._config.seed}/{place}/{number}".encode()) % 2**31,
                logprobs=0 if self._config.needs_logprobs else None,
            )
            request = GenerateRequest(f"rollout-{place}-{number}", prompt.ids, count, sampling)
            drawn = await collect(self._engine.generate(request))
            return Group(task, tuple(self._path(task, prompt, sample) for sample in drawn))

        try:
            async with asyncio.TaskGroup() as group:
                asked = enumerate(zip(tasks, prompts, strict=True))
                running = [group.create_task(one(number, *pair)) for number, pair in asked]
        except ExceptionGroup as errors:
            raise first_error(errors) from None  # an engine fails for all alike
        return [task.result() for task in running]

    def _path(self, task: TrainingProblem, prompt: Prompt, sample: PartialPath) -> SampledPath:
        content = self._engine.parse(sample.text, prompt=prompt.text).content
        return SampledPath(
            0, prompt.text, sample.text, tuple(sample.ids), prompt.ids, tuple(sample.logprobs), sample.finish or "stop",
            tokens=len(sample.ids), answer=answer_of(self._profile, task, content),
        )  # fmt: skip
