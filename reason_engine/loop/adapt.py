"""What `reason adapt` does: a model is measured, taught a domain with its old tasks held, and measured again.

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
are kept by the weights that gave them, training by its own checkpoint.

How well a checkpoint predicts the answers of a file: -log p a token, each weighted as in training.
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

from reason_engine.answers import Equality
from reason_engine.data.formats.readers import read_rows
from reason_engine.data.formats.rows import Conversation, Text
from reason_engine.data.synthesize.teacher import Target, check_verifier, open_teacher
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.open import open_engine, profile_of
from reason_engine.errors import SetupError
from reason_engine.evals import tasks
from reason_engine.evals.run import Record, RecordFile, evaluate
from reason_engine.evals.solvers import LocalSolver
from reason_engine.evals.spec import Spec, build, parse_specs
from reason_engine.loop import compare
from reason_engine.loop.compare import shares
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
            raise ValueError(
                "train.peft: only what is merged into the weights is measured: lora, dora or ia3"
            )
        if not self.domain.tasks and self.domain.rows is None:
            raise ValueError("domain: name tasks or rows by which the result is judged")
        return self


@dataclass(frozen=True, slots=True)
class Paper:
    """The problems of a task and where it belongs."""

    part: str
    spec: Spec
    problems: Sequence[Problem]


def adapt(config: AdaptConfig, *, fresh: bool, command: str, tell: OnProgress) -> str:
    """Measure, train, measure; the report. Raises SetupError before anything heavy where something is wrong."""
    papers = _papers(config)
    strategy = _strategy(config)
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
    before = _measured(config, base, papers, strategy, tell)
    _teach(config, fresh, tell)
    after = _measured(config, taught, papers, strategy, tell)
    changes = [*_tasks(config, papers, before, after, tell), *_losses(config, base, taught)]
    manifest = json.loads((taught / "manifest.json").read_text("utf-8"))
    about = {"command": command, **_about(config, manifest)}
    text = compare.markdown(changes, about)
    (config.out / "report.md").write_text(text, "utf-8")
    told = {"about": about, "changes": [asdict(change) for change in changes]}
    (config.out / "report.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    return text


def _papers(config: AdaptConfig) -> list[Paper]:
    found: list[Paper] = []
    for part, watched in (("domain", config.domain), ("old", config.old)):
        for spec in parse_specs(list(watched.tasks), "task") if watched.tasks else ():
            found.append(Paper(part, spec, build(tasks, spec).problems(config.limit, config.seed, None)))
    return found


def _strategy(config: AdaptConfig) -> Spec:
    spec, *more = parse_specs([config.strategy], "strategy")
    if more:
        raise SetupError("strategy: name one")
    build(strategies, spec)
    return spec


def _measured(
    config: AdaptConfig, model: Path, papers: Sequence[Paper], strategy: Spec, tell: OnProgress
) -> list[list[Record]]:
    """The records of each paper; those that the weights have given before are read."""
    if not papers:
        return []
    settings = load_settings({"model": str(model), "engine": config.engine, "threads": config.train.threads})
    config.out.mkdir(parents=True, exist_ok=True)
    file = RecordFile(config.out / f"answers-{ModelFolder(model).fingerprint}.jsonl")

    async def work() -> list[list[Record]]:
        engine, equality = open_engine(settings, inline=True), Equality()
        await engine.start()
        try:
            solver = LocalSolver(engine, profile_of(settings), equality, max_tokens=config.max_tokens)
            found: list[list[Record]] = []
            for paper in papers:
                plan = Plan(
                    (paper.spec,),
                    (strategy,),
                    config.limit,
                    config.seed,
                    None,
                    config.concurrency,
                    texts=True,
                )
                found.append(await evaluate(plan, solver, equality, file))
                right = sum(record.correct for record in found[-1])
                tell({"note": f"{model}: {paper.spec.label}: {right} of {len(found[-1])} right"})
            return found
        finally:
            await engine.close()
            await equality.close()

    return asyncio.run(work())


def _teach(config: AdaptConfig, fresh: bool, tell: OnProgress) -> None:
    """Train, unless that is done."""
    file = config.train.out / "manifest.json"
    if file.is_file():
        if json.loads(file.read_text("utf-8"))["config"] == config.train.model_dump(mode="json"):
            tell({"note": f"{config.train.out}: trained already"})
            return
        raise SetupError(f"{file}: made with another config; use --fresh to begin anew")
    run("sft", config.train, fresh=fresh, tell=tell)


def _tasks(
    config: AdaptConfig,
    papers: Sequence[Paper],
    before: Sequence[Sequence[Record]],
    after: Sequence[Sequence[Record]],
    tell: OnProgress,
) -> list[compare.Change]:
    found: list[compare.Change] = []
    for paper, old, new in zip(papers, before, after, strict=True):
        label = paper.spec.label
        found.append(compare.accuracy(paper.part, label, old, new))
        if (kinds := compare.classes(paper.part, label, paper.problems, old, new)) is not None:
            found.append(kinds)
        if paper.part == "domain" and config.judge is not None:
            tell({"note": f"{label}: the judge compares {len(old)} answers"})
            found.append(compare.preference(paper.part, label, _judged(config, paper, old, new)))
    return found


def _judged(
    config: AdaptConfig, paper: Paper, before: Sequence[Record], after: Sequence[Record]
) -> list[float]:
    judge = config.judge
    assert judge is not None

    async def work() -> list[float]:
        target = Target(judge.model, judge.url, config.engine, config.train.threads, config.max_tokens)
        async with open_teacher(target) as teacher:
            old, new = ([record.text or "" for record in side] for side in (before, after))
            return await shares(
                teacher, judge.params, paper.problems, old, new, config.seed, config.concurrency
            )

    return asyncio.run(work())


def _losses(config: AdaptConfig, base: Path, taught: Path) -> list[compare.Change]:
    found: list[compare.Change] = []
    for part, file in (("domain", config.domain.rows), ("old", config.old.rows)):
        if file is not None:
            count = sum(1 for _ in read_rows(file, Conversation, Text))
            sides = [
                answer_loss_of(model, file, max_length=config.train.max_length, threads=config.train.threads)
                for model in (base, taught)
            ]
            found.append(compare.loss(part, str(file), count, *sides))
    return found


def _about(config: AdaptConfig, manifest: Mapping[str, Any]) -> dict[str, object]:
    train, metrics = config.train, manifest["metrics"]
    peft = "all weights" if train.peft is None else f"{train.peft.method}, rank {train.peft.rank}"
    return {
        "model": str(train.model),
        "taught": f"{metrics['tokens']:,} tokens in {metrics['step']:,} steps",
        "trained": peft,
        "ewc": f"{train.ewc:g}" if train.ewc else "none",
        "strategy": config.strategy,
        "seed": config.seed,
    }


def answer_loss_of(
    model: Path, rows: Path, *, max_length: int = 1024, micro_tokens: int = 4096, threads: int | None = None
) -> float:
    """The mean over all tokens of the answers, in fp32. Raises SetupError, ModelLoadError."""
    read = list(read_rows(rows, Conversation, Text))
    import torch

    from reason_engine.training.common.encode import Encoder, micro_batches
    from reason_engine.training.common.forward import answer_loss, body_of
    from reason_engine.training.common.models import load_model

    torch.set_num_threads(threads or torch.get_num_threads())
    loaded, tokenizer = load_model(model)
    loaded.eval()
    items = Encoder(tokenizer, max_length).encode(read)
    body, head = body_of(loaded, False), loaded.get_output_embeddings()
    total = sum(sum(one.weights[1:]) for one in items)
    if not total:
        raise SetupError(f"{rows}: no row has an answer with a weight above 0")
    with torch.no_grad():
        return (
            sum(float(answer_loss(body, head, group, "fp32")) for group in micro_batches(items, micro_tokens))
            / total
        )
