"""The `reason` command: gathers the command files beside it and turns errors into one clear line and an exit code.

A command is a file with `add_to(app)`; whatever is heavy it imports inside the function that runs, so that
`reason --help` answers at once. Exit codes: 0 done, 1 failed, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

import os
import sys

import typer
from typer import Option

from reason_engine.errors import ReasonError, RequestError, SetupError
from reason_engine.registry import import_folder


def build() -> typer.Typer:
    """The application with every command file of this folder."""
    app = typer.Typer(
        name="reason",
        help="Serve open models with test-time reasoning that the caller chooses per request.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback(invoke_without_command=True)
    def root(version: bool = Option(False, "--version", help="Print the version and exit.")) -> None:
        if version:
            from reason_engine import __version__

            typer.echo(__version__)
            raise typer.Exit

    for command in import_folder("reason_engine.cli", besides=("main", "terminal")):
        command.add_to(app)
    return app


def main() -> None:
    """Entry point of the console script."""
    try:
        build()(prog_name="reason")
    except (SetupError, RequestError) as error:
        _fail(str(error), 2)
    except ReasonError as error:
        _fail(f"{type(error).__name__}: {error}", 1)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        # whoever read our output has left, as in `reason models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def _fail(message: str, code: int) -> None:
    print(f"reason: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
