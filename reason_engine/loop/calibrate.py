"""What `reason calibrate` does once its options are read: measure every arm on development problems, fit, write.

The policy goes into the `auto` entry of the model's `reason.json`, or of a copy of it at `out`, under the hash of the
weights. Everything that can be wrong with tasks, model and place to write is found before a token is generated.

A vote of 16 holds the votes of 4 and of 8, and an adaptive vote is one of its beginnings. So the cost-accuracy curve of
all of them takes one draw of 16 paths a problem (`Pool`).
"""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from reason_engine.answers import Equality
from reason_engine.contracts import Engine
from reason_engine.engines.chat import ChatTextMethods
from reason_engine.engines.open import bundled_model, engine_name, model_path, open_engine, profile_of
from reason_engine.errors import ContextLengthExceeded, RequestError, SetupError, VerifierError, first_error
from reason_engine.evals.run import seed_of
from reason_engine.evals.spec import DevelopmentTask, Spec, development_task
from reason_engine.loop.fit import Arm, Measured, Sample, arms, buckets, fit
from reason_engine.policy import Case, Curve, Policy, weights_of
from reason_engine.profile import FILE, Profile, companion
from reason_engine.runtime.drawn import PartialPath, PathCache, collect
from reason_engine.runtime.solve import solve
from reason_engine.runtime.verify import checker_of
from reason_engine.settings import load_settings
from reason_engine.strategies import strategies
from reason_engine.strategies.auto import certainty
from reason_engine.types import Chunk, GenerateRequest, Problem, Sampling

_ids = count()
Progress = Callable[[str, str, int, int], None]
"""Takes task, strategy, how many measurements are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is to be calibrated. `limit`: problems of each task; `only`: strategies, none for all; `within`: how much
    success a cheaper plan may lack, in points of 1; `max_tokens`: of a path."""

    tasks: tuple[Spec, ...]
    model: str | None = None
    engine: str = "auto"
    threads: int | None = None
    limit: int = 100
    seed: int = 0
    only: tuple[str, ...] = ()
    within: float = 0.01
    concurrency: int = 4
    max_tokens: int = 2048
    out: Path | None = None
    command: str = ""


@dataclass(frozen=True)
class Question:
    """A development problem with the task that grades it."""

    task: DevelopmentTask
    label: str
    problem: Problem


@dataclass
class Group:
    """Questions of one task that the profile knows, or of none, and what each arm did on each of them."""

    task: str | None
    arms: list[Arm]
    questions: list[Question] = field(default_factory=list[Question])
    samples: dict[tuple[str, int], Sample] = field(default_factory=dict[tuple[str, int], Sample])
    left_out: dict[str, str] = field(default_factory=dict[str, str])
    """Arms that cannot run on this model or engine, and why."""


async def calibrate(options: Calibration, progress: Progress) -> Policy:
    """Measure, fit and write. Raises SetupError or RequestError before a token is spent where something is wrong."""
    settings = load_settings({"model": options.model, "engine": options.engine, "threads": options.threads})
    profile = profile_of(settings)
    groups = grouped(_questions(options), profile, options.only)
    out = _target(options, model_path(settings) if engine_name(settings) not in ("openai", "scripted") else None)
    engine = open_engine(settings, inline=True)
    await engine.start()
    try:
        await measure(groups, engine, profile, options, progress)
        policy = fitted(groups, weights_of(engine.info.fingerprint), options)
    finally:
        await engine.close()
    _write(out, profile.model_copy(update={"auto": policy}))
    return policy


def grouped(questions: list[Question], profile: Profile, only: tuple[str, ...] = ()) -> list[Group]:
    """The questions by the task that the profile sees in them: that is what `auto` will see."""
    groups: dict[str | None, Group] = {}
    for question in questions:
        found = profile.task_of(question.problem.question)
        name, checker = (found[0].task, found[0].checker) if found else (None, None)
        group = groups.setdefault(name, Group(name, arms(checker, only, profile.verifiers)))
        group.questions.append(question)
    return list(groups.values())


async def measure(
    groups: list[Group], engine: Engine, profile: Profile, options: Calibration, progress: Progress
) -> None:
    """Every arm on every question; arms that draw whole paths share them. An arm that cannot run is left out."""
    equality, total, done = Equality(), sum(len(g.arms) * len(g.questions) for g in groups), 0
    work = iter([(group, place) for group in groups for place in range(len(group.questions))])

    async def worker() -> None:
        nonlocal done
        for group, place in work:
            question = group.questions[place]
            pool = Pool(engine, f"{options.seed} {question.label} {place}")
            for arm in group.arms:
                if arm.label not in group.left_out:
                    seen = View(pool) if arm.pooled else engine
                    await _measure_arm(group, place, arm, seen, profile, options, equality)
                done += 1
                progress(question.label, arm.label, done, total)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(options.concurrency):
                tasks.create_task(worker())
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    finally:
        await equality.close()


def fitted(groups: list[Group], weights: str, options: Calibration) -> Policy:
    """The policy. Raises SetupError where no strategy could run."""
    cases: list[Case] = []
    curves: list[Curve] = []
    for group in groups:
        usable = [arm for arm in group.arms if arm.label not in group.left_out]
        if not usable:
            raise SetupError(f"no strategy can run on this model: {next(iter(group.left_out.values()))}")
        words = [len(question.problem.question.split()) for question in group.questions]
        for most, places in buckets(words):
            measured = [Measured(arm.stage, tuple(group.samples[arm.label, i] for i in places)) for arm in usable]
            case, points = fit(group.task, most, measured, options.within)
            cases.append(case)
            curves += points
    # Questions of a known task are told apart first; within a task the shorter come first.
    cases.sort(key=lambda case: case.task is None)
    made = {
        "command": options.command,
        "date": datetime.now(UTC).date().isoformat(),
        "tasks": [spec.label for spec in options.tasks],
        "problems": options.limit,
        "seed": options.seed,
        "within": options.within,
        "max_tokens": options.max_tokens,
        "left_out": {name: why for group in groups for name, why in group.left_out.items()},
    }
    return Policy(weights=weights, certainty="answer", cases=tuple(cases), curves=tuple(curves), made=made)


class Pool:
    """The paths of one problem, drawn once for all strategies that would draw such: one is the same for whoever asks
    for the same prompt with the same sampling, seed aside. `drawn`: tokens that the engine generated."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name = engine, name
        self.cache = PathCache[PartialPath]()
        self.drawn = 0

    async def draw(self, key: str, n: int, request: GenerateRequest) -> list[PartialPath]:
        """N more paths of this kind, in one request to the engine."""
        seed = (zlib.crc32(f"{self.name} {key}".encode()) + len(self.cache.kept[key])) % 2**31
        sampling = replace(request.sampling, seed=seed)
        fresh = replace(request, id=f"pool-{next(_ids)}", n=n, sampling=sampling)
        paths = await collect(self.engine.generate(fresh))
        self.drawn += sum(path.tokens for path in paths)
        return paths


class View(ChatTextMethods):
    """One strategy's use of a pool, from its first path on (`runtime.sampling.PathCache`); an engine to everyone else.
    `spent`: tokens by the kind of path."""

    _format: Any  # the engine, which has the same methods

    def __init__(self, pool: Pool) -> None:
        engine = self._engine = self._format = pool.engine
        self._pool, self._paths, self.spent = pool, pool.cache.reader(), Counter[str]()
        self.caps, self.info, self.adapters = engine.caps, engine.info, engine.adapters
        self.health, self.abort, self.choose, self.score = engine.health, engine.abort, engine.choose, engine.score
        self.load_adapter, self.unload_adapter = engine.load_adapter, engine.unload_adapter
        self.draft_from = engine.draft_from

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Whole paths, one chunk each. A continuation of token ids goes to the engine itself."""
        if not isinstance(request.prompt, str):
            async for chunk in self._engine.generate(request):
                self.spent["continued"] += chunk.token_count
                yield chunk
            return
        key = repr((request.prompt, replace(request.sampling, seed=0), request.adapter))
        taken = self._paths.paths(key, request.n, lambda had: self._pool.draw(key, request.n - len(had), request))
        for index, path in enumerate(await taken):
            self.spent[key] += path.tokens
            yield Chunk(
                index, path.text, tuple(path.ids), path.tokens, tuple(path.logprobs), path.finish, path.stop_reason,
                prompt_tokens=path.prompt_tokens if index == 0 else 0,
            )  # fmt: skip


async def _measure_arm(
    group: Group, place: int, arm: Arm, engine: Engine, profile: Profile, options: Calibration, equality: Equality
) -> None:
    question = group.questions[place]
    try:
        asked = {"answer_kind": question.problem.meta.get("answer_kind"), **arm.stage.fields}
        strategy = strategies.get(arm.stage.strategy).model_validate(asked)
        outcome = await solve(
            strategy, question.problem, engine, profile=profile, sampling=Sampling(max_tokens=options.max_tokens),
            seed=seed_of(options.seed, place), equality=equality,
        )  # fmt: skip
    except ContextLengthExceeded:
        group.samples[arm.label, place] = Sample(False, 0.0, {})
        return
    except (RequestError, VerifierError) as error:
        group.left_out[arm.label] = str(error)
        return
    right = await question.task.grade(question.problem, outcome.answer.value, outcome.content, equality)
    sure = certainty(outcome.answer, checker_of(profile, question.problem))
    spent = dict(engine.spent) if isinstance(engine, View) else {}
    own = outcome.usage.completion - sum(spent.values())  # what is no shared path is the arm's own
    group.samples[arm.label, place] = Sample(right, sure, {**spent, **({arm.label: own} if own > 0 else {})})


def _questions(options: Calibration) -> list[Question]:
    if options.limit < 1:
        raise SetupError("--limit must be at least 1")
    if options.max_tokens < 1:
        raise SetupError("--max-tokens must be at least 1")
    tasks = [(spec.label, development_task(spec)) for spec in options.tasks]
    return [Question(task, name, p) for name, task in tasks for p in task.development(options.limit, options.seed)]


def _target(options: Calibration, folder: Path | None) -> Path:
    """Where the profile is written. Raises SetupError where that cannot be."""
    if options.out is None and (folder is None or folder == bundled_model()):
        raise SetupError("the profile of this model is not ours to write; name a file with --out FILE")
    path = options.out or companion(folder or Path()) / FILE
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "is a folder, not a file")
        _beside(path).open("w").close()
        _beside(path).unlink()
        if path.exists():
            path.open("a").close()
    except OSError as error:
        raise SetupError(f"{path}: cannot be written: {error.strerror}; name a file with --out FILE") from None
    return path


def _write(path: Path, profile: Profile) -> None:
    """The whole profile, in place of the old one at once."""
    text = json.dumps(profile.model_dump(mode="json", exclude_defaults=True), indent=2, ensure_ascii=False)
    _beside(path).write_text(text + "\n", "utf-8")
    os.replace(_beside(path), path)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".new")
