"""What `reason adapt` does: measures a model, teaches it a domain while its old tasks are held, and measures it again.

    out: runs/law
    train:                        # as for `reason train sft`, without `out`
      model: Qwen3-0.6B
      data: corpus.jsonl
      epochs: 2
      peft: lora
      ewc: 100
      old: before.jsonl
    domain: {tasks: ["rows:file=judged.jsonl"], rows: held-out.jsonl}
    old: {tasks: [arithmetic], rows: old-held-out.jsonl}

The taught model is `out`/model, the table `out`/report.md and report.json. A run that was broken off goes on: answers
are kept by the weights that gave them, training by its own checkpoint. The loss of a file's rows is -log p a token of
their answers, each weighted as in training.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from reason_engine.data.formats.readers import read_rows
from reason_engine.data.formats.rows import Conversation, Text
from reason_engine.data.synthesize.teacher import TeacherOptions, check_verifier, open_teacher
from reason_engine.engines.checkpoint.folder import ModelFolder, read_json
from reason_engine.engines.open import open_engine, profile_of
from reason_engine.errors import SetupError
from reason_engine.evals import tasks
from reason_engine.evals.records import Record, RecordFile
from reason_engine.evals.run import EvalPlan, evaluate
from reason_engine.evals.solvers import LocalSolver
from reason_engine.evals.spec import build, parse_specs
from reason_engine.loop import compare
from reason_engine.progress import OnProgress
from reason_engine.settings import load_settings
from reason_engine.strategies import strategies
from reason_engine.training.common.config import Frozen
from reason_engine.training.run import run
from reason_engine.training.supervised.sft import SftConfig
from reason_engine.types import Problem


class Watched(Frozen):
    """What is measured of a part: tasks by name, as for `reason eval`, and rows whose loss is told."""

    tasks: tuple[str, ...] = ()
    rows: Path | None = None


class Referee(Frozen):
    """The model that compares answers: a folder, or with `url` one of an endpoint's. `params`: of the verifier."""

    model: str | None = None
    url: str | None = None
    params: dict[str, Any] = Field(default_factory=dict[str, Any])


class AdaptConfig(Frozen):
    """A training run, and what is measured before and after it."""

    out: Path
    train: SftConfig
    domain: Watched
    old: Watched = Watched()
    strategy: str = Field("direct", description="How problems are solved: as for `reason eval`")
    limit: int | None = Field(None, ge=1, description="Problems of each task")
    seed: int = 0
    max_tokens: int = Field(512, ge=1, description="Most tokens of a path")
    concurrency: int = Field(8, ge=1)
    engine: str = "auto"
    judge: Referee | None = None

    @model_validator(mode="before")
    @classmethod
    def housed(cls, values: Any) -> Any:
        train = values.get("train") if isinstance(values, dict) else None
        if not isinstance(train, dict):
            return values
        if "out" in train:
            raise ValueError("train.out: the taught model goes into out/model")
        return {**values, "train": {**train, "out": Path(str(values.get("out", ""))) / "model"}}

    @model_validator(mode="after")
    def whole(self) -> AdaptConfig:
        if self.train.model is None:
            raise ValueError("train.model: a model that is taught a domain must be there before")
        peft = self.train.peft
        if peft is not None and (peft.method in ("prompt", "adapter") or not peft.merge):
            raise ValueError("train.peft: only what is merged into the weights is measured: lora, dora or ia3")
        if not self.domain.tasks and self.domain.rows is None:
            raise ValueError("domain: name tasks or rows by which the result is judged")
        return self


@dataclass(frozen=True, slots=True)
class MeasuredTask:
    """One task under the strategy. `part`: domain or old."""

    part: str
    plan: EvalPlan
    problems: Sequence[Problem]

    @property
    def label(self) -> str:
        """The task as reports call it."""
        return self.plan.tasks[0].label


def adapt(config: AdaptConfig, *, fresh: bool, command: str, tell: OnProgress) -> str:
    """Measure, train, measure; the report. Raises SetupError before anything heavy where something is wrong."""
    measured = _measured_tasks(config)
    if config.judge is not None:
        check_verifier("judge", config.judge.params)
    for file in (config.domain.rows, config.old.rows):
        if file is not None:
            next(iter(read_rows(file, Conversation, Text)), None)
    base, taught = config.train.model, config.train.out
    assert base is not None
    if fresh:
        shutil.rmtree(taught, ignore_errors=True)
        for file in config.out.glob("answers-*.jsonl"):
            file.unlink()
    before = _records(config, base, measured, tell)
    _teach(config, fresh, tell)
    after = _records(config, taught, measured, tell)
    changes = [*_task_changes(config, measured, before, after, tell), *_losses(config, base, taught)]
    manifest = ModelFolder(taught).read_json("manifest.json")
    about = {"command": command, **_about(config, manifest)}
    (config.out / "report.md").write_text(text := compare.markdown(changes, about), "utf-8")
    report = {"about": about, "changes": [asdict(change) for change in changes]}
    (config.out / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return text


def _measured_tasks(config: AdaptConfig) -> list[MeasuredTask]:
    found = list[MeasuredTask]()
    strategy, *more = parse_specs([config.strategy], "strategy")
    for part, watched in (("domain", config.domain), ("old", config.old)):
        for spec in parse_specs(list(watched.tasks), "task") if watched.tasks else ():
            plan = EvalPlan((spec,), (strategy,), config.limit, config.seed, concurrency=config.concurrency, texts=True)
            found.append(MeasuredTask(part, plan, build(tasks, spec).problems(config.limit, config.seed, None)))
    if more:
        raise SetupError("strategy: name one")
    build(strategies, strategy)
    return found


def _records(
    config: AdaptConfig, model: Path, measured: Sequence[MeasuredTask], tell: OnProgress
) -> list[list[Record]]:
    """The answers to each task; those that the weights have given before are read."""
    if not measured:
        return []
    # Training is judged by the weights that it wrote, not by codes of them.
    given = {"model": str(model), "engine": config.engine, "threads": config.train.threads, "weights": "full"}
    settings = load_settings(given)
    config.out.mkdir(parents=True, exist_ok=True)
    file = RecordFile(config.out / f"answers-{ModelFolder(model).fingerprint}.jsonl")

    async def work() -> list[list[Record]]:
        engine, profile = open_engine(settings, inline=True), profile_of(settings)
        found: list[list[Record]] = []
        async with LocalSolver(engine, profile, max_tokens=config.max_tokens) as solver:
            for task in measured:
                found.append(await evaluate(task.plan, solver, file))
                right = sum(record.correct for record in found[-1])
                tell({"note": f"{model}: {task.label}: {right} of {len(found[-1])} right"})
        return found

    return asyncio.run(work())


def _teach(config: AdaptConfig, fresh: bool, tell: OnProgress) -> None:
    """Train, unless that is done."""
    file = config.train.out / "manifest.json"
    if not file.is_file():
        run("sft", config.train, fresh=fresh, tell=tell)
    elif read_json(file)["config"] == config.train.model_dump(mode="json"):
        tell({"note": f"{config.train.out}: trained already"})
    else:
        raise SetupError(f"{file}: made with another config; use --fresh to begin anew")


def _task_changes(
    config: AdaptConfig,
    measured: Sequence[MeasuredTask],
    before: Sequence[Sequence[Record]],
    after: Sequence[Sequence[Record]],
    tell: OnProgress,
) -> list[compare.Change]:
    found: list[compare.Change] = []
    for task, old, new in zip(measured, before, after, strict=True):
        found.append(compare.accuracy(task.part, task.label, old, new))
        if (f1 := compare.classes(task.part, task.label, task.problems, old, new)) is not None:
            found.append(f1)
        if task.part == "domain" and config.judge is not None:
            tell({"note": f"{task.label}: the judge compares {len(old)} answers"})
            shares = asyncio.run(_judged(config, config.judge, task, old, new))
            found.append(compare.preference(task.part, task.label, shares))
    return found


async def _judged(
    config: AdaptConfig, judge: Referee, task: MeasuredTask, before: Sequence[Record], after: Sequence[Record]
) -> list[float]:
    target = TeacherOptions(judge.model, judge.url, config.engine, config.train.threads, config.max_tokens)
    old, new = ([record.text or "" for record in side] for side in (before, after))
    async with open_teacher(target) as teacher:
        return await compare.win_shares(teacher, judge.params, task.problems, old, new, config.seed, config.concurrency)


def _losses(config: AdaptConfig, base: Path, taught: Path) -> list[compare.Change]:
    found: list[compare.Change] = []
    for part, file in (("domain", config.domain.rows), ("old", config.old.rows)):
        if file is not None:
            count = sum(1 for _ in read_rows(file, Conversation, Text))
            sides = [mean_answer_loss(model, file, config.train) for model in (base, taught)]
            found.append(compare.loss(part, str(file), count, *sides))
    return found


def _about(config: AdaptConfig, manifest: Mapping[str, Any]) -> dict[str, object]:
    train, metrics = config.train, manifest["metrics"]
    return {
        "model": str(train.model),
        "taught": f"{metrics['tokens']:,} tokens in {metrics['step']:,} steps",
        "trained": "all weights" if train.peft is None else f"{train.peft.method}, rank {train.peft.rank}",
        "ewc": f"{train.ewc:g}" if train.ewc else "none",
        "strategy": config.strategy,
        "seed": config.seed,
    }


def mean_answer_loss(model: Path, rows: Path, config: SftConfig, micro_tokens: int = 4096) -> float:
    """The mean over all tokens of the answers, in fp32. Raises SetupError, ModelLoadError."""
    read = list(read_rows(rows, Conversation, Text))
    import torch

    from reason_engine.training.common.encode import Encoder, micro_batches
    from reason_engine.training.common.forward import answer_loss, body_of
    from reason_engine.training.common.models import load_model

    torch.set_num_threads(config.threads or torch.get_num_threads())
    loaded, tokenizer = load_model(model)
    loaded.eval()
    items = Encoder(tokenizer, config.max_length).encode(read)
    body, head, groups = body_of(loaded, False), loaded.get_output_embeddings(), micro_batches(items, micro_tokens)
    total = sum(sum(one.weights[1:]) for one in items)
    if not total:
        raise SetupError(f"{rows}: no row has an answer with a weight above 0")
    with torch.no_grad():
        return sum(float(answer_loss(body, head, group, "fp32")) for group in groups) / total
