"""Samples of the policy as it is now: the embedded engine in this process, given the new weights after every step.

A prompt is read once for all its samples. The engine runs in fp32 like the trainer, so what it draws from and what the
trainer measures differ by rounding only.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from reason_engine.contracts import Powers
from reason_engine.engines.embedded.front import Embedded
from reason_engine.errors import SetupError, first_error
from reason_engine.profile import read_profile
from reason_engine.settings import load_settings
from reason_engine.training.online.curriculum import Task
from reason_engine.training.online.reward_scorer import Bench, Judged, answer_of
from reason_engine.types import FinishReason, GenerateRequest, Path, Sampling, TokenLogprob
from reason_engine.verifiers.code import Sandbox

if TYPE_CHECKING:
    from torch import Tensor

    from reason_engine.training.common.policy import Row
    from reason_engine.training.online.loop import Online


@dataclass(frozen=True, slots=True)
class Group:
    """A task and the samples of its prompt, in the order of their seeds."""

    task: Task
    paths: tuple[Path, ...]

    @property
    def rows(self) -> list[Row]:
        from reason_engine.training.common.policy import Row

        return [Row(path.prompt_ids, path.token_ids) for path in self.paths]


class Actor:
    """The policy's engine and the rewards. Opened and closed with `with`."""

    def __init__(self, config: Online) -> None:
        """Raises ModelLoadError for a folder that the embedded engine does not run, SetupError where programs are to
        be run on a machine that cannot limit them."""
        threads, heads = config.threads or 0, config.reward_models
        keys = load_settings().reward_keys
        self._config = config
        self._engine = Embedded(config.model, inline=True, dtype="float32", threads=threads)
        judged_by = config.judge or (config.model if heads else None)
        self._judge = (
            Embedded(judged_by, inline=True, threads=threads, rewards=heads, reward_keys=keys)
            if judged_by
            else None
        )
        self._profile = read_profile(config.model)
        sandbox = Sandbox() if config.allow_code else None
        self._bench = Bench(config.rewards, self._profile, self._judge, Powers(sandbox))
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
        self._runner.run(self._bench.equality.close())
        self._runner.close()

    @property
    def _engines(self) -> list[Embedded]:
        return [engine for engine in (self._engine, self._judge) if engine is not None]

    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Sample from these weights from now on."""
        self._runner.run(self._engine.take_weights(weights))

    def check(self, tasks: Sequence[Task]) -> None:
        """Raises SetupError naming the reward that cannot judge one of these tasks. Nothing is generated."""
        self._bench.check(tasks)

    def sample(self, tasks: Sequence[Task], count: int, place: str) -> list[Group]:
        """`count` samples of each task; `place` and the run's seed decide what is drawn. Raises SetupError for a prompt
        that leaves no room for an answer."""
        prompts = [self._engine.render_chat(task.problem.turns()) for task in tasks]
        ids = [tuple(self._engine.tokenize(prompt)) for prompt in prompts]
        room = self._engine.info.context - self._config.max_tokens
        for task, one in zip(tasks, ids, strict=True):
            if len(one) > room:
                raise SetupError(
                    f"max_tokens: a prompt of {len(one)} tokens leaves no room for {self._config.max_tokens} in a "
                    f"context of {self._engine.info.context}: {task.problem.question[:60]!r}"
                )
        return self._runner.run(self._all(tasks, prompts, ids, count, place))

    def judge(self, groups: Sequence[Group], done: float) -> Judged:
        """The rewards of all samples when this share of the run is done."""
        return self._runner.run(self._bench.score([(group.task, group.paths) for group in groups], done))

    async def _all(
        self,
        tasks: Sequence[Task],
        prompts: Sequence[str],
        ids: Sequence[tuple[int, ...]],
        count: int,
        place: str,
    ) -> list[Group]:
        async def one(number: int) -> Group:
            seed = zlib.crc32(f"{self._config.seed}/{place}/{number}".encode()) % 2**31
            sampling = Sampling(
                max_tokens=self._config.max_tokens,
                temperature=self._config.temperature,
                seed=seed,
                logprobs=0 if self._config.likelihoods else None,
            )
            request = GenerateRequest(f"rollout-{place}-{number}", ids[number], count, sampling)
            drafts = [_Draft() for _ in range(count)]
            async for chunk in self._engine.generate(request):
                draft = drafts[chunk.index]
                draft.text += chunk.text
                draft.ids += chunk.token_ids
                draft.logprobs += chunk.logprobs
                draft.finish = chunk.finish_reason or draft.finish
            paths = tuple(self._path(tasks[number], prompts[number], ids[number], draft) for draft in drafts)
            return Group(tasks[number], paths)

        try:
            async with asyncio.TaskGroup() as together:
                running = [together.create_task(one(number)) for number in range(len(tasks))]
        except ExceptionGroup as group:
            raise first_error(group) from None  # an engine fails for all alike
        return [task.result() for task in running]

    def _path(self, task: Task, prompt: str, ids: tuple[int, ...], draft: _Draft) -> Path:
        return Path(
            0,
            prompt,
            draft.text,
            tuple(draft.ids),
            ids,
            tuple(draft.logprobs),
            draft.finish,
            tokens=len(draft.ids),
            answer=answer_of(self._profile, task, self._engine.parse(draft.text, prompt=prompt).content),
        )


@dataclass(slots=True)
class _Draft:
    text: str = ""
    ids: list[int] = field(default_factory=list[int])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    finish: FinishReason = "stop"
