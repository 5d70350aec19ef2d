"""`reason train`: one training method, its config file, a checkpoint folder."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer import Argument, Option

from reason_engine.cli.terminal import AsJson, RecipeSets, print_result


def add_to(app: typer.Typer) -> None:
    app.command("train", help="Train a model by a recipe; a killed run goes on by itself.")(train)


SHOW = "show"
METHODS = "sft, distill, dpo, kto, reward, process-reward, grpo, rloo, ppo, online-dpo"
"""For the help, which loads nothing; a test compares it with the registry."""


def train(
    method: Annotated[str, Argument(help=f"{METHODS}; or show, to read the run in the folder RUN")],
    shown: Annotated[Path | None, Argument(metavar="[RUN]", help="Folder of a run, for show.")] = None,
    config: Annotated[Path | None, Option("--config", "-c", help="The recipe, a YAML file.")] = None,
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
    step: Annotated[int | None, Option(min=1, help="The step whose samples are shown; none: the last.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train, or show a run. The config is validated before anything heavy is imported."""
    if method == SHOW:
        _show(shown, step, as_json)
        return
    _check_words(method, shown, config, step)
    assert config is not None
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
        typer.echo(f"\nwritten to {prepared.out}; curves and samples: {prepared.out / 'report.html'}")


def _check_words(method: str, shown: Path | None, config: Path | None, step: int | None) -> None:
    """Raises SetupError for what belongs to `show`, and where there is no recipe."""
    from reason_engine.errors import SetupError

    if shown is not None or step is not None:
        raise SetupError(
            f"{method}: RUN and --step are for `reason train show RUN`; a recipe is named by --config FILE"
        )
    if config is None:
        from reason_engine.training import trainers

        trainers.get(method, param="METHOD")
        raise SetupError(f"{method}: which recipe? reason train {method} --config FILE")


def _show(run: Path | None, step: int | None, as_json: bool) -> None:
    """Print a run, finished or not, and write its page."""
    from reason_engine.errors import SetupError
    from reason_engine.training.watch.page import write_page
    from reason_engine.training.watch.read import changes, read_run
    from reason_engine.training.watch.show import samples_of, show_run

    if run is None:
        raise SetupError("show: which run? reason train show FOLDER, the `out` of its recipe")
    view = read_run(run)
    text = show_run(view, step)
    found = {"state": view.state, "last": view.log[-1], "changes": [asdict(one) for one in changes(view)]}
    print_result({**found, "samples": samples_of(view, step)}, f"{text}\n\nas a page: {write_page(view)}", as_json)


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
