"""Samples the policy as it is now, and judges the samples.

The embedded engine runs in this process, in fp32 like the trainer, so that what it draws from and what the trainer
measures differ by rounding only. A prompt is read once for all its samples. An adapter is handed to it as it is (lora,
prompt, adapter) beside the base that it has loaded; one that it does not serve so is merged first (dora, ia3).
"""

from __future__ import annotations

import asyncio
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reason_engine.contracts import Powers
from reason_engine.engines.embedded.front import Embedded
from reason_engine.errors import SetupError, first_error
from reason_engine.profile import read_profile
from reason_engine.runtime.drawn import PartialPath, collect
from reason_engine.runtime.prompts import PromptCache
from reason_engine.settings import load_settings
from reason_engine.training.common.encode import Rollout
from reason_engine.training.online.environment import BatchRewards, RewardScorer, TrainingProblem, answer_of
from reason_engine.training.online.recipe import Online
from reason_engine.types import GenerateRequest, Prompt, Sampling
from reason_engine.types import Path as SampledPath
from reason_engine.verifiers.code import Sandbox

if TYPE_CHECKING:
    from reason_engine.training.common.adapters import Adapted

KEPT = 2**27
"""Bytes of prompts that an engine keeps where an adapter changes each step: no old one is found again."""


@dataclass(frozen=True, slots=True)
class Group:
    """A problem and the samples of its prompt, in the order of their seeds."""

    task: TrainingProblem
    paths: tuple[SampledPath, ...]

    @property
    def rollouts(self) -> list[Rollout]:
        return [Rollout(path.prompt_ids, path.token_ids) for path in self.paths]


class Actor:
    """The policy's engine and the rewards. Opened and closed with `with`."""

    def __init__(self, config: Online) -> None:
        """Raises ModelLoadError for a folder that the embedded engine does not run, SetupError where programs are to
        be run on a machine that cannot limit them."""
        threads, heads = config.threads or 0, config.reward_models
        self._config, judge = config, None
        self._engine = Embedded(
            config.model, inline=True, dtype="float32", threads=threads, prefix_bytes=0 if config.peft is None else KEPT
        )
        self._engines = [self._engine]
        if judged_by := config.judge or (config.model if heads else None):
            keys = load_settings().reward_keys
            judge = Embedded(judged_by, inline=True, threads=threads, rewards=heads, reward_keys=keys)
            self._engines.append(judge)
        self._profile = read_profile(config.model)
        sandbox = Sandbox() if config.allow_code else None
        self._scorer = RewardScorer(config.rewards, self._profile, judge, Powers(sandbox))
        self._runner, self._scratch, self._adapter = asyncio.Runner(), ExitStack(), None
        self._folder: Path | None = None
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
        self._scratch.close()

    def take_weights(self, model: Any, adapted: Adapted | None = None) -> None:
        """Sample from these weights from now on, under the adapter where there is one."""
        from reason_engine.training.common.adapters import hand_over

        if self._folder is None:
            self._folder = Path(self._scratch.enter_context(tempfile.TemporaryDirectory(prefix="reason-adapter-")))
        self._adapter = self._runner.run(hand_over(self._engine, model, adapted, self._folder))

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
            request = GenerateRequest(f"rollout-{place}-{number}", prompt.ids, count, sampling, adapter=self._adapter)
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
