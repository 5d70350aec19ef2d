"""`reason calibrate`: measure every strategy on development problems and fit the policy that `auto` follows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from reason_engine.cli import terminal

if TYPE_CHECKING:
    from reason_engine.policy import Policy


def add_to(app: typer.Typer) -> None:
    app.command("calibrate", help="Measure the strategies on a model and fit what `auto` does with it.")(calibrate)


def calibrate(
    task: Annotated[list[str], Argument(help="Tasks, as mix, word-problems:steps=3-5 or rows:file=mine.jsonl.")],
    model: terminal.Model = None,
    engine: terminal.EngineName = "auto",
    strategies: Annotated[
        list[str] | None, Option("--strategies", "-s", help="Only these, with commas between; default: all.")
    ] = None,
    limit: Annotated[int, Option(min=1, help="Development problems of each task.")] = 100,
    seed: terminal.Seed = 0,
    within: Annotated[float, Option(min=0, max=100, help="Points of success that a cheaper plan may lack.")] = 1.0,
    max_tokens: Annotated[int, Option(min=1, help="Most tokens of a path.")] = 2048,
    out: Annotated[Path | None, Option(help="Write the profile here, not into the model's folder.")] = None,
    concurrency: terminal.Concurrency = 4,
    threads: terminal.Threads = None,
    as_json: terminal.AsJson = False,
) -> None:
    """Calibrate."""
    import asyncio

    from reason_engine.evals.spec import parse_specs
    from reason_engine.loop.calibrate import Calibration
    from reason_engine.loop.calibrate import calibrate as fit

    options = Calibration(
        tasks=tuple(parse_specs(task, "task")), model=model, engine=engine, threads=threads, limit=limit, seed=seed,
        only=tuple(name.strip() for text in strategies or () for name in text.split(",")), within=within / 100,
        concurrency=concurrency, max_tokens=max_tokens, out=out, command=terminal.command_line(),
    )  # fmt: skip

    def tell(task: str, strategy: str, done: int, total: int) -> None:
        terminal.show_progress(done, total, task, strategy, {"task": task, "strategy": strategy}, as_json)

    policy = asyncio.run(fit(options, tell))
    terminal.print_result({"policy": policy.model_dump(mode="json")}, table(policy), as_json)


def table(policy: Policy) -> str:
    """The curves and the plans as Markdown."""
    lines: list[str] = []
    for case in policy.cases:
        lines += [f"## {case.label}", "", "| strategy | success % | new tokens |", "|---|---:|---:|"]
        points = sorted((p for p in policy.curves if p.case == case.label), key=lambda point: point.tokens)
        lines += [f"| {p.strategy} | {100 * p.success:.1f} | {p.tokens:,.1f} |" for p in points]
        lines += ["", "| plan of auto | success % | new tokens |", "|---|---:|---:|"]
        for plan in case.plans:
            names = ", then ".join(
                s.strategy
                + "".join(f" {k}={v}" for k, v in s.fields.items())
                + (f" (from {s.accept:.3g})" if s.accept is not None else "")
                for s in plan.stages
            )
            lines.append(f"| {names} | {100 * (plan.success or 0):.1f} | {plan.tokens:,.1f} |")
        lines.append("")
    left_out: dict[str, str] = policy.made.get("left_out") or {}
    return "\n".join([*lines, *(f"Left out: {name}: {why}" for name, why in left_out.items())])
