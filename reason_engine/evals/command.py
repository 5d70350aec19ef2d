"""What `reason eval` does once its options are read: find who answers, run the plan, write the report.

The folder of a run: `run.json` (what was run, and by which commands), `answers.jsonl`, and the report.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reason_engine.answers import Equality
from reason_engine.engines.open import open_engine, profile_of, served_name
from reason_engine.errors import SetupError
from reason_engine.evals.record import Record, RecordFile
from reason_engine.evals.report import Report, summarise, write
from reason_engine.evals.run import Plan, evaluate, jobs
from reason_engine.evals.solvers import InProcess, OverHttp, Solver
from reason_engine.evals.spec import build
from reason_engine.knowledge import Library
from reason_engine.settings import load_settings
from reason_engine.strategies import strategies
from reason_engine.types import Limits


@dataclass(frozen=True, slots=True)
class Target:
    """A model in this process, or with `url` a running server. `limits` bound each problem, `max_tokens` each path;
    `knowledge` is the folder of documents that strategies with `knowledge=true` retrieve from."""

    model: str | None = None
    url: str | None = None
    engine: str = "auto"
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)
    max_tokens: int = 0
    api_key: str | None = None
    knowledge: Path | None = None


async def run(
    plan: Plan, target: Target, out: Path | None, command: str, progress: Callable[[Record, int, int], None]
) -> Report:
    """Raises SetupError or RequestError before a token is spent where plan, target or folder are wrong."""
    jobs(plan)
    if not target.url:  # a server checks what it is asked itself, and may know more strategies
        for spec in plan.strategies:
            build(strategies, spec)
    equality = Equality()
    try:
        async with _solver(target, equality) as solver:
            folder = Folder(out, _setup(plan, target, solver), command)
            return folder.finish(await evaluate(plan, solver, equality, folder.answers, progress))
    finally:
        await equality.close()


@asynccontextmanager
async def _solver(target: Target, equality: Equality) -> AsyncIterator[Solver]:
    if target.url and target.knowledge:
        raise SetupError("--knowledge and --url exclude each other: a server has its own documents")
    if target.url:
        remote = OverHttp(
            target.url,
            model=target.model,
            api_key=target.api_key,
            limits=target.limits,
            max_tokens=target.max_tokens,
        )
        async with remote:
            yield remote
        return
    given = {"model": target.model, "engine": target.engine, "threads": target.threads}
    settings = load_settings({**given, "knowledge": target.knowledge})
    profile = profile_of(settings)
    engine = open_engine(settings, inline=True)
    folder, model = settings.knowledge, settings.knowledge_model
    library = Library(folder, engine=engine, model=model) if folder else None
    await engine.start()
    try:
        if library:
            await library.open()
        name = served_name(settings)
        yield InProcess(engine, profile, equality, target.limits, target.max_tokens, name, library)
    finally:
        await engine.close()


def _setup(plan: Plan, target: Target, solver: Solver) -> dict[str, Any]:
    """What must not change while a run is continued."""
    budget = {
        "tokens": target.limits.tokens,
        "seconds": target.limits.seconds,
        "samples": target.limits.samples,
    }
    return {
        "model": solver.name,
        "engine": "http" if target.url else target.engine,
        "seed": plan.seed,
        "max_tokens": target.max_tokens,
        "budget": {key: value for key, value in budget.items() if value is not None},
        "version": version("reason-engine"),
        **({"knowledge": str(target.knowledge)} if target.knowledge else {}),
    }


class Folder:
    """Opens or continues a run. Without a path nothing is kept.

    `setup` must be the same whenever a run is continued; `command` is added to those that made the answers so far.
    Raises SetupError where the folder is of another set-up or cannot be written.
    """

    def __init__(self, path: Path | None, setup: Mapping[str, Any], command: str) -> None:
        self.path = path
        commands = [command]
        if path is not None:
            commands = [*_earlier(path, setup), command]
            commands = list(dict.fromkeys(commands))
            try:
                path.mkdir(parents=True, exist_ok=True)
                text = json.dumps({**setup, "commands": commands}, indent=1, ensure_ascii=False)
                (path / "run.json").write_text(text + "\n", "utf-8")
            except OSError as error:
                raise SetupError(f"--out {path}: {error.strerror}") from None
        self.about = {"commands": commands, **setup}
        self.answers = RecordFile(path / "answers.jsonl" if path else None)

    def finish(self, records: list[Record]) -> Report:
        """The report, written where there is a path."""
        report = summarise(records, self.about)
        if self.path is not None:
            write(report, self.path)
        return report


def _earlier(path: Path, setup: Mapping[str, Any]) -> list[str]:
    """The commands of the run that is continued."""
    file = path / "run.json"
    if not file.exists():
        return []
    try:
        known = json.loads(file.read_text("utf-8"))
        commands = [str(command) for command in known.pop("commands")]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise SetupError(f"{file}: not the record of an evaluation: {error!r}") from None
    for key in setup:
        if known.get(key) != setup[key]:
            raise SetupError(
                f"--out {path} holds a run with {key} {known.get(key)!r}, this one has {setup[key]!r}; choose another"
            )
    return commands
