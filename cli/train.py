"""`reason train`: one training method, its config file, a checkpoint folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from reason_engine.cli._options import AsJson


def add_to(app: typer.Typer) -> None:
    app.command("train", help="Train a model by a recipe; a killed run goes on by itself.")(train)


METHODS = "sft, distill, dpo, kto, reward, process-reward, grpo, rloo, ppo, online-dpo"
"""For the help, which loads nothing; a test compares it with the registry."""

Method = Annotated[str, typer.Argument(help=METHODS)]
ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The recipe, a YAML file.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Laid over the recipe.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin anew instead of going on from a checkpoint.")]


def train(
    method: Method,
    config: ConfigFile,
    settings: Settings = None,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Train. The config is validated before anything heavy is imported."""
    from reason_engine.training.callbacks import reporter
    from reason_engine.training.run import prepare, run

    prepared = prepare(method, config, settings or ())
    run(method, prepared, fresh=fresh, tell=reporter(sys.stdout, as_json or not sys.stdout.isatty()))
