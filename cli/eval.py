"""`reason eval`: tasks times strategies, with intervals, costs and paired tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from reason_engine.cli import terminal

if TYPE_CHECKING:
    from reason_engine.evals.records import Record

DEFAULT = ["direct,chain-of-thought,self-consistency"]


def add_to(app: typer.Typer) -> None:
    app.command("eval", help="Measure strategies on tasks: success with intervals, tokens spent, paired tests.")(eval_)


def eval_(
    task: Annotated[
        list[str] | None, Argument(help="Tasks, as game24 or word-problems:steps=3-5; none: list them.")
    ] = None,
    strategies: Annotated[
        list[str],
        Option("--strategies", "-s", help="Names with commas between, each as NAME:key=value,key=value, or JSON."),
    ] = DEFAULT,
    model: terminal.Model = None,
    url: terminal.Url = None,
    engine: terminal.EngineName = "auto",
    limit: Annotated[int | None, Option(min=1, help="Problems of each task, drawn by the seed.")] = None,
    seed: terminal.Seed = 0,
    data: Annotated[Path | None, Option(help="Folder of public data sets, as DIR/game24/24.csv.")] = None,
    out: Annotated[Path | None, Option(help="Keep answers and report here; a run that was cut goes on.")] = None,
    concurrency: terminal.Concurrency = 4,
    max_tokens: Annotated[int, Option(min=0, help="Bound on each path; 0: the context's rest.")] = 0,
    tokens: terminal.Tokens = None,
    seconds: terminal.Seconds = None,
    samples: terminal.Samples = None,
    threads: terminal.Threads = None,
    knowledge: terminal.Knowledge = None,
    reasoning_parser: terminal.ReasoningParser = None,
    tool_parser: terminal.ToolParser = None,
    repeats: Annotated[int, Option(min=1, help="Answer each problem so often, each time with another seed.")] = 1,
    grade_paths: Annotated[bool, Option("--grade-paths", help="Grade the paths behind each answer as well.")] = False,
    pass_at: Annotated[
        str,
        Option(metavar="K,K", help="Report pass@k, of so many answers or paths at least one right; default: 1, all."),
    ] = "",
    allow_code: Annotated[
        bool, Option("--allow-code", help="Let tasks, votes and verifiers run the model's programs, in a sandbox.")
    ] = False,
    as_json: terminal.AsJson = False,
) -> None:
    """Evaluate. With --url, --model names one of the server's models."""
    import asyncio
    from dataclasses import asdict

    from reason_engine.evals import tasks
    from reason_engine.evals.command import run
    from reason_engine.evals.run import EvalPlan
    from reason_engine.evals.solvers import EvalTarget
    from reason_engine.evals.spec import parse_specs
    from reason_engine.evals.tables import markdown

    if not task:
        print("\n".join(tasks))
        return
    tried = tuple(parse_specs(task, "task")), tuple(parse_specs(strategies, "strategy"))
    ks = terminal.numbers(pass_at, "--pass-at")
    plan = EvalPlan(
        *tried, limit=limit, seed=seed, data=data, concurrency=concurrency, repeats=repeats, pass_at=ks,
        grade_paths=grade_paths,
    )  # fmt: skip
    key = os.environ.get("REASON_API_KEY")
    budget = terminal.limits(tokens, seconds, samples)
    target = EvalTarget(
        model, url, engine, threads, budget, max_tokens, key, knowledge, reasoning_parser, tool_parser, allow_code
    )

    def tell(record: Record, done: int, total: int) -> None:
        terminal.show_progress(done, total, record.task, record.strategy, {"record": asdict(record)}, as_json)

    report = asyncio.run(run(plan, target, out, terminal.command_line(), tell))
    terminal.print_result({"report": asdict(report)}, markdown(report), as_json)
