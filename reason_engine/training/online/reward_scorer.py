"""Rewards: verifiers by name, mixed with weights that may change over the run; outcomes and steps.

    r_i = sum over outcome rewards k of w_k(t) r_ki,      w_k(t) from `weight` at the beginning to `last` at the end

A process reward judges steps: each value stands at the last token of its step, and the method decides how it is
spread. Verifiers work without a server: those that compute get a call that refuses to generate, those that ask a model
get a real context on the judging engine, whose weights do not move with the policy's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal, cast

from pydantic import BaseModel, Field, ValidationError, model_validator

from reason_engine.answers import Equality, find, normalise
from reason_engine.contracts import Call, Capabilities, Engine, Powers, ProcessVerifier, Verifier
from reason_engine.errors import CapabilityMissing, ReasonError, RequestError, SetupError, first_error
from reason_engine.profile import Profile
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.context import Context
from reason_engine.runtime.prompts import PromptCache
from reason_engine.runtime.run import Run
from reason_engine.runtime.verify import NONE, checker_of, verifier_of
from reason_engine.training.common.config import Frozen
from reason_engine.training.online.curriculum import Task
from reason_engine.types import Choice, Draw, Limits, Message, Passage, Path, Sampling, Scores
from reason_engine.verifiers import verifiers

Steps = list[list[list[tuple[int, float]]]]
"""[prompt][sample]: (place of the step's last token in the answer, reward)."""


class Reward(Frozen):
    """One verifier. `families` restricts it to tasks of these families of the mixture (none: all)."""

    verifier: str
    params: Mapping[str, Any] = {}
    weight: float = Field(1.0, allow_inf_nan=False, description="Below 0: a penalty")
    last: float | None = Field(None, allow_inf_nan=False, description="Weight at the end of the run")
    process: bool = Field(False, description="Judge steps, not the outcome")
    families: tuple[str, ...] = ()

    @model_validator(mode="after")
    def known(self) -> Reward:
        try:
            kind = verifiers.get(self.verifier, param="verifier")
            cast(type[BaseModel], kind).model_validate(dict(self.params))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in ("params", *first["loc"]))
            raise ValueError(f"{self.verifier}: {where}: {first['msg']}") from None
        except RequestError as error:
            raise ValueError(error.message) from None
        return self

    def weighs(self, done: float) -> float:
        """Its weight when this share of the run is done."""
        return self.weight if self.last is None else self.weight + (self.last - self.weight) * done


@dataclass(frozen=True, slots=True)
class Judged:
    """`outcome[p][g]` is the weighted sum; `steps` holds (weight, values) of each process reward; `means` are over all
    samples, by verifier, before weighting; `unjudged`: values that a verifier did not give."""

    outcome: list[list[float]]
    steps: list[tuple[float, Steps]]
    means: Mapping[str, float]
    unjudged: int = 0

    def folded(self) -> list[list[float]]:
        """One number a sample: the outcome plus the weighted mean of its steps."""
        folded = [list(group) for group in self.outcome]
        for weight, table in self.steps:
            for p, group in enumerate(table):
                for g, one in enumerate(group):
                    folded[p][g] += weight * (sum(r for _, r in one) / len(one) if one else 0.0)
        return folded

    def only(self, kept: Sequence[int]) -> Judged:
        """Of these prompts."""
        steps = [(weight, [table[p] for p in kept]) for weight, table in self.steps]
        return replace(self, outcome=[self.outcome[p] for p in kept], steps=steps)

    def __add__(self, other: Judged) -> Judged:
        """Both batches; the means are the first one's, which was drawn without choosing."""
        steps = [(w, [*a, *b]) for (w, a), (_, b) in zip(self.steps, other.steps, strict=True)]
        unjudged = self.unjudged + other.unjudged
        return Judged([*self.outcome, *other.outcome], steps, self.means, unjudged)


@dataclass
class Bench:
    """Where rewards are made. `judge`: an engine whose models judge; None: verifiers that ask a model are refused."""

    rewards: Sequence[Reward]
    profile: Profile
    judge: Engine | None
    powers: Powers = NONE
    equality: Equality = field(default_factory=Equality)
    _numbers: Iterator[int] = field(default_factory=count)

    def check(self, tasks: Sequence[Task]) -> None:
        """Raises SetupError naming the reward that cannot judge one of these tasks."""
        for number, reward in enumerate(self.rewards):
            for task in tasks:
                if _applies(reward, task):
                    self._built(number, task)

    async def score(self, groups: Sequence[tuple[Task, Sequence[Path]]], done: float) -> Judged:
        """Judge samples when this share of the run is done."""
        outcome = [[0.0] * len(paths) for _, paths in groups]
        steps: list[tuple[float, Steps]] = []
        means: dict[str, float] = {}
        unjudged = 0
        for number, reward in enumerate(self.rewards):
            weight, given = reward.weighs(done), list[float]()
            table: Steps = [[[] for _ in paths] for _, paths in groups]
            judging = [p for p, (task, _) in enumerate(groups) if _applies(reward, task)]
            verdicts = await self._together(number, [groups[p] for p in judging])
            for p, verdict in zip(judging, verdicts, strict=True):
                if reward.process:
                    table[p] = verdict.steps
                    given += [sum(r for _, r in one) / len(one) if one else 0.0 for one in verdict.steps]
                    continue
                unjudged += sum(not math.isfinite(value) for value in verdict.values)
                values = _filled(verdict.values)
                given += values
                outcome[p] = [sum_ + weight * value for sum_, value in zip(outcome[p], values, strict=True)]
            means[reward.verifier] = sum(given) / len(given) if given else 0.0
            if reward.process:
                steps.append((weight, table))
        return Judged(outcome, steps, means, unjudged)

    def _built(self, number: int, task: Task) -> Verifier:
        reward, where = self.rewards[number], f"rewards.{number}"
        caps = self.judge.caps if self.judge else Capabilities(token_ids=True)
        try:
            made = verifier_of(
                reward.verifier, reward.params, self.profile, task.problem, caps, where, self.powers
            )
        except RequestError as error:
            if error.code == "code_execution_off" and self.powers.code is None:
                raise SetupError(
                    f"{where}: the verifier {reward.verifier!r} runs what samples say; allow_code: true lets it, in a "
                    "sandbox"
                ) from None
            hint = "; set `judge` to a model" if isinstance(error, CapabilityMissing) else ""
            raise SetupError(f"{where}: {error.message}{hint}") from None
        if reward.process and not isinstance(made, ProcessVerifier):
            raise SetupError(f"{where}: process: {reward.verifier!r} judges whole answers, not steps")
        return made

    async def _together(self, number: int, groups: Sequence[tuple[Task, Sequence[Path]]]) -> list[_Verdict]:
        """Verdicts in order; at once where a model judges, which then reads many texts in a pass.

        Raises SetupError naming a reward that a task or the config leaves nothing to judge by.
        """
        try:
            if self.judge is None:
                return [await self._verdict(number, task, paths) for task, paths in groups]
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(self._verdict(number, task, paths)) for task, paths in groups]
            return [task.result() for task in running]
        except Exception as error:  # a boundary: what runs together fails in groups
            leaf = first_error(error)
            if isinstance(leaf, RequestError):
                raise SetupError(f"rewards.{number}: {leaf.message}") from None
            if isinstance(leaf, ReasonError):
                raise leaf from None
            raise

    async def _verdict(self, number: int, task: Task, paths: Sequence[Path]) -> _Verdict:
        verifier, call = self._built(number, task), self._call(task)
        if not self.rewards[number].process:
            return _Verdict([score.value for score in await verifier.score(task.problem, paths, call)], [])
        assert isinstance(verifier, ProcessVerifier)
        steps: list[list[tuple[int, float]]] = []
        for path in paths:
            scores = await verifier.score_steps(task.problem, path, call)
            values = _filled([score.value for score in scores])
            steps.append(list(zip(step_places(path, self.profile.step_end), values, strict=False)))
        return _Verdict([], steps)

    def _call(self, task: Task) -> Call:
        if self.judge is None:
            return _MUTE
        run = Run(
            id=f"reward-{next(self._numbers)}",
            engine=self.judge,
            problem=task.problem,
            profile=self.profile,
            budget=Budget(Limits()),
            sampling=Sampling(max_tokens=0),
            strategy="reward",
            seed=0,
            publish=lambda event: None,
            equality=self.equality,
            prompts=PromptCache(self.judge),
        )
        return Context(run, run.open(None, "reward"))


def answer_of(profile: Profile, task: Task, content: str) -> str | None:
    """The answer in what a sample says, as a vote would read it; None where there is none."""
    found = find(content, profile.answer_marker)
    if found is None and task.bare:
        found = content.strip() or None
    if found is None:
        return None
    return " ".join(found.split()) if checker_of(profile, task.problem) else normalise(found)


def step_places(path: Path, end: str) -> list[int]:
    """The place of the last token of each step of a path, by the tokens' texts; steps without text are left out."""
    borders, at = list[int](), 0
    for token in path.logprobs:
        at += len(token.token)
        borders.append(at)
    places, at, token = list[int](), 0, 0
    for piece in path.text.split(end):
        if piece.strip() and borders:
            while token < len(borders) - 1 and borders[token] < at + len(piece):
                token += 1
            places.append(token)
        at += len(piece) + len(end)
    return places


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a verifier says of the samples of one task: values of whole answers, or steps with their places."""

    values: list[float]
    steps: list[list[tuple[int, float]]]


def _applies(reward: Reward, task: Task) -> bool:
    return not reward.families or task.family in reward.families


def _filled(values: list[float]) -> list[float]:
    """What was not judged counts as the mean of the rest: it neither gains nor loses."""
    known = [value for value in values if math.isfinite(value)]
    mean = sum(known) / len(known) if known else 0.0
    return [value if math.isfinite(value) else mean for value in values]


class _Mute:
    """The call of a verifier that only computes."""

    async def sample(self, prompt: str | None = None, draw: Draw = Draw()) -> list[Path]:
        raise _refused()

    async def choice(
        self, prompt: str, options: tuple[str, ...], *, prefill: str = "", stage: str = "choice"
    ) -> Choice:
        raise _refused()

    async def rate(
        self,
        inputs: Sequence[str],
        *,
        task: Literal["reward", "token_reward", "embed"] = "reward",
        model: str | None = None,
        stage: str = "rate",
        turns: Sequence[Message] = (),
        ends: Sequence[tuple[int, ...]] = (),
        prompts: Sequence[str] = (),
    ) -> Scores:
        raise _refused()

    async def retrieve(self, query: str, k: int = 4) -> list[Passage]:
        return []

    def staged(self, stage: str) -> Call:
        return self


def _refused() -> SetupError:
    return SetupError("rewards: a verifier asks a model; set `judge` to the folder of one that judges")


_MUTE = _Mute()
