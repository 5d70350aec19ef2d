"""What `reason eval` does once its options are read: find who answers, run the plan, write the report.

The folder of a run: `run.json` (what was run, and by which commands), `answers.jsonl`, and the report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reason_engine.answers import Equality
from reason_engine.contracts import Powers
from reason_engine.engines.open import open_engine, profile_of, served_name
from reason_engine.errors import SetupError
from reason_engine.evals.plot import plot
from reason_engine.evals.records import Record, RecordFile
from reason_engine.evals.report import EvalReport, summarise
from reason_engine.evals.run import EvalPlan, evaluate, trials
from reason_engine.evals.solvers import EvalTarget, LocalSolver, RemoteSolver, Solver, budget_of
from reason_engine.evals.spec import build
from reason_engine.evals.tables import markdown
from reason_engine.knowledge import Library
from reason_engine.settings import load_settings
from reason_engine.strategies import strategies
from reason_engine.verifiers.code import Sandbox


async def run(
    plan: EvalPlan, target: EvalTarget, out: Path | None, command: str, progress: Callable[[Record, int, int], None]
) -> EvalReport:
    """Raises SetupError or RequestError before a token is spent where plan, target or folder are wrong."""
    if plan.grade_paths and target.url:
        raise SetupError("--grade-paths and --url exclude each other: a server does not tell every path")
    sandbox = await _sandbox(target)
    trials(plan, sandbox)
    if not target.url:  # a server checks what it is asked itself, and may know more strategies
        for spec in plan.strategies:
            build(strategies, spec)
    solver, library = _solver(target, sandbox)
    async with solver:
        if library:
            await library.open()
        folder = RunFolder(out, _setup(plan, target, solver), command)
        return folder.finish(await evaluate(plan, solver, folder.answers, progress, sandbox), plan.pass_at)


async def _sandbox(target: EvalTarget) -> Sandbox | None:
    """Where programs run; None where the operator does not allow it. Raises SetupError where they cannot be limited."""
    if not load_settings({"code_execution": target.allow_code or None}).code_execution:
        return None
    sandbox = Sandbox()
    if reason := await sandbox.probe():
        raise SetupError(f"--allow-code: programs cannot be limited on this machine: {reason}")
    return sandbox


def _solver(target: EvalTarget, sandbox: Sandbox | None) -> tuple[Solver, Library | None]:
    """Who answers, and the documents that it may retrieve from."""
    if target.url:
        if target.knowledge:
            raise SetupError("--knowledge and --url exclude each other: a server has its own documents")
        if target.reasoning_parser or target.tool_parser:
            raise SetupError("a parser and --url exclude each other: a server reads its own model")
        return RemoteSolver(target), None
    names = ("model", "engine", "threads", "knowledge", "reasoning_parser", "tool_parser")
    settings = load_settings({name: getattr(target, name) for name in names})
    profile, engine, name = profile_of(settings), open_engine(settings, inline=True), served_name(settings)
    folder, model = settings.knowledge, settings.knowledge_model
    library = Library(folder, engine=engine, model=model) if folder else None
    powers = Powers(sandbox, settings.satisfaction)
    return LocalSolver(engine, profile, Equality(), target.limits, target.max_tokens, name, library, powers), library


def _setup(plan: EvalPlan, target: EvalTarget, solver: Solver) -> dict[str, Any]:
    """What must not change while a run is continued."""
    return {
        "model": solver.name,
        "engine": "http" if target.url else target.engine,
        "seed": plan.seed,
        "max_tokens": target.max_tokens,
        "budget": budget_of(target.limits),
        "version": version("reason-engine"),
        **({"knowledge": str(target.knowledge)} if target.knowledge else {}),
        **({"allow_code": True} if target.allow_code else {}),
    }


class RunFolder:
    """Opens or continues a run. Without a path nothing is kept.

    `setup` must be the same whenever a run is continued; `command` is added to those that made the answers so far.
    Raises SetupError where the folder is of another set-up or cannot be written.
    """

    def __init__(self, path: Path | None, setup: Mapping[str, Any], command: str) -> None:
        self.path = path
        commands = [command]
        if path is not None:
            commands = list(dict.fromkeys([*_earlier(path, setup), command]))
            try:
                path.mkdir(parents=True, exist_ok=True)
                text = json.dumps({**setup, "commands": commands}, indent=1, ensure_ascii=False)
                (path / "run.json").write_text(text + "\n", "utf-8")
            except OSError as error:
                raise SetupError(f"--out {path}: {error.strerror}") from None
        self.about = {"commands": commands, **setup}
        self.answers = RecordFile(path / "answers.jsonl" if path else None)

    def finish(self, records: list[Record], pass_at: Sequence[int] = ()) -> EvalReport:
        """The report, written where there is a path: `report.md`, `report.json` and the plot `report.png`."""
        report = summarise(records, self.about, pass_at)
        if self.path is not None:
            (self.path / "report.md").write_text(markdown(report), "utf-8")
            data = json.dumps(asdict(report), indent=1, ensure_ascii=False)
            (self.path / "report.json").write_text(data + "\n", "utf-8")
            plot(report, self.path / "report.png")
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
