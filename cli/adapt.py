"""`reason adapt`: teach a model a domain with its old tasks held, and report both, before and after."""

import sys
from typing import Annotated

import typer
from typer import Option

from reason_engine.cli.terminal import AsJson, RecipeFile, RecipeSets, command_line, print_result


def add_to(app: typer.Typer) -> None:
    app.command("adapt", help="Teach a model a domain; report it and the old tasks, before and after.")(adapt)


def adapt(
    config: RecipeFile,
    settings: RecipeSets = None,
    fresh: Annotated[bool, Option("--fresh", help="Train and measure anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Adapt. The config is validated before anything heavy is imported."""
    from reason_engine.loop.adapt import AdaptConfig
    from reason_engine.loop.adapt import adapt as work
    from reason_engine.progress import reporter
    from reason_engine.training.common.config import load

    prepared = load(AdaptConfig, config, settings or ())
    lines = as_json or not sys.stdout.isatty()
    report = work(prepared, fresh=fresh, command=command_line(), tell=reporter(sys.stdout, lines))
    print_result({"report": str(prepared.out / "report.json")}, report, as_json)
