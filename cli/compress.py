"""`reason compress`: a smaller checkpoint of a checkpoint, with a report of what it costs."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from reason_engine.cli.terminal import AsJson, print_result


def add_to(app: typer.Typer) -> None:
    app.command("compress", help="Make a model smaller, and measure what that costs.")(compress)


METHODS = "gptq, int8, prune, qat"
"""For the help, which loads nothing; a test compares it with the registry."""


def compress(
    method: Annotated[str, Argument(metavar="METHOD", help=METHODS)],
    model: Annotated[str, Argument(help="Checkpoint folder, hub name or reason-nano.")],
    out: Annotated[Path, Argument(help="Folder for the result; made whole or not at all.")],
    config: Annotated[Path | None, Option("--config", "-c", help="Settings in a YAML file.")] = None,
    settings: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Laid over the file, as bits=4.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compress. The config is validated before anything heavy is imported."""
    from reason_engine.compression.run import prepare, run
    from reason_engine.progress import reporter

    prepared = prepare(method, config, settings or ())
    report = run(method, prepared, model, out, reporter(sys.stdout, as_json))
    text = (out / "report.md").read_text("utf-8")
    print_result({"report": report, "out": str(out)}, f"{text}\nwritten to {out}", as_json)
