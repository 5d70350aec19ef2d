"""Samples of the policy as it is now: the embedded engine in this process, given the new weights after every step.

A prompt is read once for all its samples. The engine runs in fp32 like the trainer, so what it draws from and what the
trainer measures differ by rounding only.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from reason_engine.contracts import Powers
from reason_engine.engines.embedded.front import Embedded
from reason_engine.errors import SetupError, first_error
from reason_engine.profile import read_profile
from reason_engine.runtime.collect import PartialPath, collect
from reason_engine.settings import load_settings
from reason_engine.training.online.curriculum import TrainingProblem
from reason_engine.training.online.recipe import Online
from reason_engine.training.online.reward_scorer import BatchRewards, RewardScorer, answer_of
from reason_engine.types import GenerateRequest, Path, Prompt, Sampling
from reason_engine.verifiers.code import Sandbox

if TYPE_CHECKING:
    from torch import Tensor

    from reason_engine.training.common.policy import Rollout


@dataclass(frozen=True, slots=True)
class Group:
    """A problem and the samples of its prompt, in the order of their seeds."""

    task: TrainingProblem
    paths: tuple[Path, ...]

    @property
    def rollouts(self) -> list[Rollout]:
        from reason_engine.training.common.policy import Rollout

        return [Rollout(path.prompt_ids, path.token_ids) for path in self.paths]


class Actor:
    """The policy's engine and the rewards. Opened and closed with `with`."""

    def __init__(self, config: Online) -> None:
        """Raises ModelLoadError for a folder that the embedded engine does not run, SetupError where programs are to
        be run on a machine that cannot limit them."""
        threads, heads = config.threads or 0, config.reward_models
        self._config = config
        self._engine = Embedded(config.model, inline=True, dtype="float32", threads=threads)
        self._engines, judge = [self._engine], None
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
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for engine in self._engines:
            self._runner.run(engine.close())
        self._runner.run(self._scorer.equality.close())
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
        prompts: list[Prompt] = []
        most, context = self._config.max_tokens, self._engine.info.context
        for task in tasks:
            text = self._engine.render_chat(task.problem.turns())
            prompts.append(Prompt(text, self._engine.tokenize(text)))
            if len(prompts[-1].ids) > context - most:
                raise SetupError(
                    f"max_tokens: a prompt of {len(prompts[-1].ids)} tokens leaves no room for {most} in a "
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
                running = [
                    group.create_task(one(number, task, prompt))
                    for number, (task, prompt) in enumerate(zip(tasks, prompts, strict=True))
                ]
        except ExceptionGroup as errors:
            raise first_error(errors) from None  # an engine fails for all alike
        return [task.result() for task in running]

    def _path(self, task: TrainingProblem, prompt: Prompt, sample: PartialPath) -> Path:
        content = self._engine.parse(sample.text, prompt=prompt.text).content
        return Path(
            0,
            prompt.text,
            sample.text,
            tuple(sample.ids),
            prompt.ids,
            tuple(sample.logprobs),
            sample.finish or "stop",
            tokens=len(sample.ids),
            answer=answer_of(self._profile, task, content),
        )
