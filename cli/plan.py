"""`reason plan`: what one's own runs say about the next one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from reason_engine.cli.terminal import AsJson, print_result
from reason_engine.errors import SetupError

if TYPE_CHECKING:
    from reason_engine.compression.forecast import Forecast, Goal, HeldOutError, PruningForecast
    from reason_engine.compression.law import Point

app = typer.Typer(no_args_is_help=True, help="Predict a run from the runs there are.")


def add_to(root: typer.Typer) -> None:
    root.add_typer(app, name="plan")


@app.callback()
def several() -> None:
    """Keeps `prune` a word of its own while it is the only one."""


@app.command()
def prune(
    points: Annotated[Path, Option(help="Points of pruning runs, as `reason compress prune` appends them.")],
    by: Annotated[str | None, Option(help="The kind of pruning, where the file holds several.")] = None,
    target_loss: Annotated[float | None, Option(help="Loss that recovery shall reach.")] = None,
    tokens: Annotated[int | None, Option(min=1, help="Tokens of recovery instead.")] = None,
    size: Annotated[float | None, Option(min=1, help="Parameters of a model before pruning.")] = None,
    rate: Annotated[float | None, Option(help="Its pruned share, above 0 and below 1.")] = None,
    base_loss: Annotated[float | None, Option(help="Its loss before pruning.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fit the P2 law to pruning runs and say which recovery a loss needs.

    Without --size, --rate and --base-loss the runs of the file are looked at.
    """
    from reason_engine.compression.forecast import of_kind, predict
    from reason_engine.compression.law import read_points

    if target_loss is not None and tokens is not None:
        raise SetupError("--target-loss and --tokens exclude each other")
    rows = of_kind(read_points(points), by)
    found = predict(rows, by, _goals(rows, (size, rate, base_loss), target_loss, tokens))
    print_result(asdict(found), text(found), as_json)


def text(found: PruningForecast) -> str:
    """The law, how far to trust it, the forecasts."""
    law, left_out = found.law, f", {found.dropped} at or below L0 left out" if found.dropped else ""
    return "\n".join(
        [
            f"P2 law of {found.by} pruning, fitted to {found.runs} runs, {found.points} points{left_out}",
            "L = L0 + (1/rho)^gamma (1/N0)^delta (NC/N0^alpha + DC/D^beta + E)",
            f"NC {law.NC:.4g}  alpha {law.alpha:.4g}  DC {law.DC:.4g}  beta {law.beta:.4g}  E {law.E:.4g}  "
            f"gamma {law.gamma:.4g}  delta {law.delta:.4g}",
            "",
            "Mean error of L - L0 on points that were not fitted:",
            *_error_lines("last fifth of the checkpoints", found.checkpoints),
            *_error_lines("whole runs, each left out once", found.whole_runs),
            "",
            *map(_line, found.forecasts),
        ]
    )


def _error_lines(name: str, errors: HeldOutError) -> list[str]:
    if not errors.points:
        return [f"  {name}: too few sizes and rates to leave any out"]
    low, high = errors.interval
    said = f"  {name}: P2 law {errors.error:.1%} (95 % interval {low:.1%} to {high:.1%}, worst {errors.worst:.1%})"
    return [said, *(f"    {rival} {error:.1%}" for rival, error in errors.rivals.items())]


def _line(one: Forecast) -> str:
    wish = one.wish
    name = f"{wish.run}: N0 {wish.N0:,.0f}, rho {wish.rho:.3f}, L0 {wish.L0:.4f}:"
    if one.refused is not None:
        return f"{name} {one.refused}"
    if one.tokens is None:
        return f"{name} recovery tends to a loss of {one.loss:.4f}"
    if wish.tokens is not None:
        return f"{name} loss {one.loss:.4f} after {one.tokens:,.0f} tokens"
    return f"{name} {one.tokens:,.0f} tokens to a loss of {one.loss:.4f}"


def _goals(
    rows: list[Point], model: tuple[float | None, float | None, float | None], target: float | None, tokens: int | None
) -> list[Goal]:
    from reason_engine.compression.forecast import Goal
    from reason_engine.compression.law import runs_of

    size, rate, base_loss = model
    if size is None and rate is None and base_loss is None:
        first = [run[0] for run in runs_of(rows).values()]
        return [Goal(one.run, one.N0, one.rho, one.L0, target, tokens) for one in first]
    if size is None or rate is None or base_loss is None:
        raise SetupError("--size, --rate and --base-loss go together: they name a model that is not in the file")
    if not 0 < rate < 1:
        raise SetupError(f"--rate: must be above 0 and below 1, is {rate:g}")
    if target is not None and target <= base_loss:
        raise SetupError(
            f"--target-loss: the law knows losses above that of the model before pruning ({base_loss:g}) only"
        )
    return [Goal("this model", size, rate, base_loss, target, tokens)]
