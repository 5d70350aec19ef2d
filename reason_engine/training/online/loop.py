"""The shape of every method that learns from its own samples; what differs is the loss.

A step: take problems, sample the policy, judge the samples, let the method make items of them, take `updates` passes of
`minibatches` optimiser steps over the items, give the engine the new weights. Everything that decides what comes next
(weights, optimiser, place in the course, random state) is in the checkpoint, so a killed run goes on as if unbroken.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import Field, model_validator

from reason_engine.data.mixture import Part
from reason_engine.errors import SetupError
from reason_engine.progress import OnProgress
from reason_engine.training.common.config import Frozen, Patterns
from reason_engine.training.common.run_log import Log
from reason_engine.training.online.curriculum import Course, Stage, staged
from reason_engine.training.online.preflight import preflight, try_endpoints, try_rewards
from reason_engine.training.online.reward_scorer import Judged, Reward
from reason_engine.types import Path as Sample

if TYPE_CHECKING:
    from torch import Tensor

    from reason_engine.training.common.policy import Policy, Row
    from reason_engine.training.online.rollout import Actor, Group

Item = TypeVar("Item", bound="Measured")
Clip = tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0)]]
"""How far a ratio may fall and rise."""


class Online(Frozen):
    """One of `data` (a file of prompts with answers) and `mixture` (this package's generators)."""

    trained: ClassVar[int] = 1
    """Models that learn."""

    out: Path
    model: Path = Field(description="The checkpoint folder that is trained; it is the reference too")
    data: Path | None = None
    format: str | None = Field(None, description="The data's format, where it should not be detected")
    mixture: tuple[Part, ...] = ()
    curriculum: tuple[Stage, ...] = Field((), description="Stages before the mixture as it stands")
    rewards: tuple[Reward, ...] = Field(min_length=1, max_length=16)
    judge: Path | None = Field(None, description="A checkpoint folder whose model and heads judge")
    reward_models: dict[str, str] = Field(
        {}, description="Reward models by name, for the judging engine: folders, or URLs of pooling endpoints"
    )
    allow_code: bool = Field(
        False, description="Let the verifier `code` run what samples say, in the sandbox that serving uses"
    )
    steps: int = Field(ge=1)
    prompts: int = Field(16, ge=1, description="Problems a step")
    samples: int = Field(8, ge=1, description="Samples of each problem")
    max_tokens: int = Field(256, ge=1, description="Most tokens of a sample")
    temperature: float = Field(1.0, ge=0.1, le=4)
    updates: int = Field(1, ge=1, description="Passes over the samples of a step")
    minibatches: int = Field(1, ge=1, description="Optimiser steps a pass")
    micro_tokens: int = Field(8192, ge=16, description="Padded tokens a forward pass")
    mask_truncated: bool = Field(False, description="Samples cut at max_tokens teach nothing")
    refill: int = Field(
        0, ge=0, description="Times to draw other problems in place of those whose samples are all alike"
    )
    rate: float = Field(1e-5, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up")
    final: float = Field(1.0, ge=0, le=1, description="Share of the rate left at the end, falling linearly")
    clip_norm: float = Field(1.0, gt=0)
    freeze: Patterns = Field((), description="Regular expressions over names of parameters that stay")
    precision: Literal["bf16", "fp32"] = "fp32"
    compile: bool = False
    threads: int | None = Field(None, ge=1)
    seed: int = 0
    save_every: int = Field(20, ge=1, description="Steps between checkpoints")
    keep_every: int | None = Field(
        None, ge=1, description="Steps between checkpoints that are kept as models"
    )
    log_every: int = Field(1, ge=1, description="Steps between log lines")
    tensorboard: bool = Field(False, description="Write events for TensorBoard into `out`/tensorboard")
    unservable: bool = Field(False, description="Train a model that vLLM cannot serve all the same")

    @model_validator(mode="after")
    def whole(self) -> Online:
        if (self.data is None) == (not self.mixture):
            raise ValueError("give either data or mixture")
        if self.curriculum and not self.mixture:
            raise ValueError("curriculum: its stages change families of a mixture")
        for stage in self.curriculum:
            staged(self.mixture, stage)
        families = {part.family for part in self.mixture}
        for reward in self.rewards:
            if strange := set(reward.families) - families:
                raise ValueError(f"rewards: the mixture has no family {sorted(strange)[0]!r}")
        twice = [
            name for name, count in Counter(reward.verifier for reward in self.rewards).items() if count > 1
        ]
        if twice and not all(reward.families for reward in self.rewards if reward.verifier in twice):
            raise ValueError(f"rewards: {twice[0]!r} stands twice; give each its families")
        return self

    @property
    def likelihoods(self) -> bool:
        """Whether samples carry the engine's log-probabilities, which judges of steps read."""
        return any(reward.process or reward.verifier == "process-rules" for reward in self.rewards)


class Measured(Protocol):
    """What a method learns from at once: a sample, or a pair of them."""

    @property
    def rows(self) -> Sequence[Row]: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of a step by prompt, and their rewards."""

    groups: Sequence[Group]
    judged: Judged

    @property
    def rows(self) -> list[Row]:
        """All samples in order."""
        return [row for group in self.groups for row in group.rows]

    @property
    def paths(self) -> list[Sample]:
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
    from reason_engine.training.online.rollout import Actor

    found = [*preflight(config), *try_endpoints(config)]
    actor = Actor(config)
    for line in (*found, try_rewards(config, actor)):
        tell({"note": line})
    import torch

    from reason_engine.training.common.checkpoint import Checkpoint
    from reason_engine.training.common.models import load_or_build, save_model, write_profile
    from reason_engine.training.common.optimisers import freeze
    from reason_engine.training.common.policy import Policy

    torch.set_num_threads(config.threads or torch.get_num_threads())
    torch.manual_seed(config.seed)
    course = Course(config)
    (model, tokenizer), (start, _) = load_or_build(config), load_or_build(config)
    freeze(model, config.freeze)
    learner = make(
        Policy(model, config.temperature, config.precision, config.compile),
        Policy(start.eval().requires_grad_(False), config.temperature, config.precision),
    )
    rates = learner.rates
    kept = torch.nn.ModuleDict(learner.modules)
    optimiser = torch.optim.AdamW(
        [
            {
                "params": [p for p in module.parameters() if p.requires_grad],
                "full": rates.get(name, config.rate),
            }
            for name, module in learner.modules.items()
        ],
        weight_decay=config.weight_decay,
    )
    checkpoint = Checkpoint(out / "checkpoint", config)
    step, tokens = checkpoint.restore(kept, [optimiser], course)
    board = out / "tensorboard" if config.tensorboard else None
    log = Log(out / "log.jsonl", 0, tokens, tell, board)
    metrics: dict[str, Any] = {}
    first, began = step, time.monotonic()
    with actor:
        if step:
            actor.take(model.state_dict())
        while step < config.steps:
            share = rate(config, step)
            for group in optimiser.param_groups:
                group["lr"] = group["full"] * share
            moment = time.monotonic()
            batch, told = gather(config, actor, course, step)
            told["sample_seconds"] = time.monotonic() - moment
            learned = _learn(config, learner, optimiser, batch, step + 1)
            actor.take(model.state_dict())
            told["learn_seconds"] = time.monotonic() - moment - told["sample_seconds"]
            step, tokens = step + 1, tokens + told.pop("drawn")
            metrics = {"step": step, "tokens": tokens, "rate": share, **learned, **told}
            if step % config.log_every == 0 or step == config.steps:
                spent = time.monotonic() - began
                log.write(metrics, spent / (step - first) * (config.steps - step))
            course.saw(told["reward"], step)
            if step % config.save_every == 0 and step < config.steps:
                checkpoint.save(kept, [optimiser], course, step, tokens)
            if config.keep_every and step % config.keep_every == 0:
                save_model(model, tokenizer, out / f"at-{step}")
    save_model(model, tokenizer, out)
    write_profile(config.model, out)
    checkpoint.remove()
    return metrics


def rate(config: Online, step: int) -> float:
    """Share of the full rate at a step: linear warm-up, then a line down to `final` at the last step."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    left = config.steps - 1 - config.warmup
    return 1.0 if left <= 0 else 1 - (1 - config.final) * (step - config.warmup) / left


def gather(config: Online, actor: Actor, course: Course, step: int) -> tuple[Batch, dict[str, Any]]:
    """The samples of a step, and what is told of them before any choice is made among them.

    With `refill`, problems whose samples all got the same reward, which teach a group nothing, make room for others
    (dynamic sampling: Yu et al. 2025, arXiv:2503.14476, section 3.2).
    """
    done = step / max(1, config.steps - 1)
    groups: list[Group] = []
    judged: Judged | None = None
    told: dict[str, Any] = {}
    drawn = 0
    for turn in range(config.refill + 1):
        tasks = course.take(config.prompts)
        if not turn:
            actor.check(tasks)
        fresh = actor.sample(tasks, config.samples, f"{step}-{turn}")
        found = actor.judge(fresh, done)
        drawn += sum(len(path.token_ids) for group in fresh for path in group.paths)
        told = told or _told(fresh, found, course.stage)
        if config.refill:
            kept = [p for p, values in enumerate(found.folded()) if max(values) - min(values) > 1e-9]
            fresh, found = [fresh[p] for p in kept], found.only(kept)
        groups, judged = groups + fresh, found if judged is None else judged + found
        if len(groups) >= config.prompts:
            break
    assert judged is not None
    first = range(min(config.prompts, len(groups)))
    return Batch(groups[: config.prompts], judged.only(first)), {**told, "drawn": drawn}


def _told(groups: Sequence[Group], judged: Judged, stage: int) -> dict[str, Any]:
    rewards = judged.folded()
    flat = [value for group in rewards for value in group]
    mean = sum(flat) / len(flat)
    paths = [path for group in groups for path in group.paths]
    return {
        "reward": mean,
        "reward_std": math.sqrt(sum((value - mean) ** 2 for value in flat) / len(flat)),
        **{f"reward_{name}": value for name, value in judged.means.items()},
        "flat": sum(max(group) - min(group) <= 1e-9 for group in rewards) / len(rewards),
        "length": sum(len(path.token_ids) for path in paths) / len(paths),
        "truncated": sum(path.finish_reason == "length" for path in paths) / len(paths),
        "unjudged": judged.unjudged,
        "stage": stage,
    }


def _learn(
    config: Online, learner: Learner[Any], optimiser: Any, batch: Batch, step: int
) -> dict[str, float]:
    """All optimiser steps on one batch: the means of their metrics."""
    import torch

    from reason_engine.training.common.policy import micro

    sums: defaultdict[str, float] = defaultdict(float)
    items = learner.items(batch) if batch.groups else []
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    each, passes = -(-len(items) // config.minibatches), 0
    for _ in range(config.updates if items else 0):
        one = config.minibatches == 1
        order = list(range(len(items))) if one else torch.randperm(len(items)).tolist()
        for at in range(0, len(order), each):
            whole = [items[place] for place in order[at : at + each]]
            for places in micro(whole, config.micro_tokens):
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
