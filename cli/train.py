"""`reason train`: one training method, its config file, a checkpoint folder."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer
from typer import Argument, Option

from reason_engine.cli.terminal import AsJson, RecipeFile, RecipeSets


def add_to(app: typer.Typer) -> None:
    app.command("train", help="Train a model by a recipe; a killed run goes on by itself.")(train)


METHODS = "sft, distill, dpo, kto, reward, process-reward, grpo, rloo, ppo, online-dpo"
"""For the help, which loads nothing; a test compares it with the registry."""


def train(
    method: Annotated[str, Argument(help=METHODS)],
    config: RecipeFile,
    settings: RecipeSets = None,
    fresh: Annotated[bool, Option("--fresh", help="Begin anew instead of going on from a checkpoint.")] = False,
    launch: Annotated[
        str | None, Option(help="Run in --gpus processes of this machine: replicated, fsdp2 or zero3.")
    ] = None,
    hand_over: Annotated[
        str | None, Option(metavar="verl", help="Write a job for another trainer instead (grpo, ppo).")
    ] = None,
    gpus: Annotated[int, Option(min=1, help="GPUs of a node, for --launch and --hand-over.")] = 8,
    nodes: Annotated[int, Option(min=1, help="Machines, for --hand-over.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Train. The config is validated before anything heavy is imported."""
    from reason_engine.progress import reporter
    from reason_engine.training.common.distributed import is_first
    from reason_engine.training.run import prepare, run

    prepared = prepare(method, config, settings or ())
    if hand_over is not None:
        typer.echo(_handed(hand_over, prepared, gpus, nodes))
        return
    if launch is not None:
        _launch(launch, gpus, prepared, [method, "--config", str(config)], settings or (), fresh, as_json)
    lines = as_json or not sys.stdout.isatty()
    run(method, prepared, fresh=fresh, tell=reporter(sys.stdout, lines))
    if not lines and is_first():
        typer.echo(f"\nwritten to {prepared.out}")


def _launch(
    name: str, gpus: int, prepared: object, words: list[str], settings: Sequence[str], fresh: bool, as_json: bool
) -> NoReturn:
    """This process becomes the launcher."""
    from reason_engine.training.run import launch_command

    words = ["train", *words, *(word for one in settings for word in ("--set", one))]
    words += [*(["--fresh"] if fresh else []), *(["--json"] if as_json else [])]
    command = launch_command(name, gpus, prepared, words)
    os.execv(command[0], command)


def _handed(name: str, prepared: object, gpus: int, nodes: int) -> str:
    from reason_engine.errors import SetupError
    from reason_engine.training.online.verl import write_job

    if name != "verl":
        raise SetupError(f"--hand-over {name}: the one trainer that runs are handed to is verl")
    folder = write_job(prepared, gpus=gpus, nodes=nodes)
    return f"{folder}: check.sh lets verl check the job, run.sh trains, merge.sh makes a checkpoint to serve"
