"""`reason data`: training data as files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Make training data.")


def add_to(root: typer.Typer) -> None:
    root.add_typer(app, name="data")


@app.callback()
def data() -> None:
    """Keeps `generate` a subcommand while it is the only one."""


Count = Annotated[int, typer.Option("--count", "-n", min=1, help="Examples to write.")]
Family = Annotated[str | None, typer.Option("--family", "-f", help="One family; none: list them.")]
Recipe = Annotated[Path | None, typer.Option("--config", "-c", help="Take the mixture of a training recipe.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A knob of the family.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="A .jsonl file; none: standard output.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Same seed, same examples.")]


@app.command("generate")
def generate(
    family: Family = None,
    config: Recipe = None,
    count: Count = 1000,
    seed: SeedOption = 0,
    settings: Settings = None,
    out: Out = None,
) -> None:
    """Draw examples from one family or a recipe's mixture and write them as JSON lines."""
    from reason_engine.data.door import describe, draw

    if family is None and config is None:
        typer.echo(describe())
        return
    for row in draw(family, config, count, seed, settings or (), out):
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
