"""`reason adapt`: teach a model a domain with its old tasks held, and report both, before and after."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from reason_engine.cli.terminal.options import AsJson, show


def add_to(app: typer.Typer) -> None:
    app.command("adapt", help="Teach a model a domain; report it and the old tasks, before and after.")(adapt)


ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The recipe, a YAML file.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Laid over the recipe.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Train and measure anew.")]


def adapt(
    config: ConfigFile, settings: Settings = None, fresh: Fresh = False, as_json: AsJson = False
) -> None:
    """Adapt. The config is validated before anything heavy is imported."""
    from reason_engine.loop.adapt import AdaptConfig
    from reason_engine.loop.adapt import adapt as work
    from reason_engine.progress import reporter
    from reason_engine.training.common.config import load

    prepared = load(AdaptConfig, config, settings or ())
    lines = as_json or not sys.stdout.isatty()
    command = shlex.join(["reason", *sys.argv[1:]])
    report = work(prepared, fresh=fresh, command=command, tell=reporter(sys.stdout, lines))
    if as_json:
        show({"report": str(prepared.out / "report.json")})
    else:
        typer.echo(report)
