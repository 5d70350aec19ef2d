"""What several commands share: options and what they mean, lines on a terminal, a client of a running server."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from reason_engine.errors import SetupError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from reason_engine.types import Limits

Model = Annotated[
    str | None, Option("--model", "-m", help="Checkpoint folder, GGUF file or hub name; none: reason-nano.")
]
Url = Annotated[str | None, Option("--url", "-u", help="A running server instead, as http://127.0.0.1:8000.")]
EngineName = Annotated[str, Option("--engine", help="auto, embedded, vllm or openai.")]
StrategyName = Annotated[str | None, Option("--strategy", "-s", help="Reasoning strategy: reason strategies.")]
Sets = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="An option of the strategy.")]
Seed = Annotated[int, Option("--seed", help="Same seed, same search.")]
AsJson = Annotated[bool, Option("--json", help="JSON on standard output.")]
Tokens = Annotated[int | None, Option(min=1, help="Budget: generated tokens, all branches together.")]
Seconds = Annotated[float | None, Option(min=0.001, help="Budget: seconds.")]
Samples = Annotated[int | None, Option(min=1, help="Budget: generated sequences.")]
Knowledge = Annotated[
    Path | None, Option(metavar="DIR", help="Documents to retrieve from: Markdown, text, PDF, triples.")
]
ReasoningParser = Annotated[
    str | None, Option(metavar="NAME", help="How the model writes thoughts; none: found from its template.")
]
ToolParser = Annotated[
    str | None, Option(metavar="NAME", help="How the model writes tool calls; none: found from its template.")
]
Threads = Annotated[int | None, Option(min=1, help="Torch threads of the embedded engine.")]
RecipeFile = Annotated[Path, Option("--config", "-c", help="The recipe, a YAML file.")]
RecipeSets = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="Laid over the recipe.")]
Concurrency = Annotated[int, Option("--concurrency", "-c", min=1, help="Problems at once.")]


def parse_sets(pairs: Sequence[str] | None) -> dict[str, Any]:
    """`key=value` pairs as a mapping; a value is JSON where it reads as such, else text. Raises SetupError."""
    found: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise SetupError(f"--set {pair!r}: expected key=value")
        if key in found:
            raise SetupError(f"--set {key}: given twice")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers with commas between, each once. Raises SetupError."""
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if wrong := next((part for part in parts if not (part.isascii() and part.isdigit())), None):
        raise SetupError(f"{option} {text!r}: expected whole numbers with commas between, not {wrong!r}")
    return tuple(dict.fromkeys(map(int, parts)))


def limits(tokens: int | None, seconds: float | None, samples: int | None) -> Limits:
    """The budget that the options name."""
    from reason_engine.types import Limits

    return Limits(tokens, seconds, samples)


def show(value: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own."""
    print(json.dumps(value, ensure_ascii=False), file=sys.stdout, flush=True)


def print_result(value: Mapping[str, Any], text: str, as_json: bool) -> None:
    """What a command found: one JSON object, or its text."""
    print(json.dumps(value, ensure_ascii=False) if as_json else text, flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Rows under their headings, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(str, row))
    Console().print(table)


def show_status(text: str, end: str = "") -> None:
    """Overwrite the current line of a terminal; nothing where standard error is none."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end=end, file=sys.stderr, flush=True)


def show_progress(done: int, total: int, task: str, strategy: str, more: Mapping[str, Any], as_json: bool) -> None:
    """How far a measurement is: on a terminal, or with `more` as a JSON line."""
    if as_json:
        show({"done": done, "total": total, **more})
    else:
        show_status(f"{done}/{total}  {task}  {strategy}", "\n" if done == total else "")


def bind_error(host: str, port: int) -> OSError | None:
    """Why a server could not listen there; None where it could."""
    import socket

    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error
    return None


def command_line() -> str:
    """This command as it was typed, for reports."""
    return shlex.join(["reason", *sys.argv[1:]])


def client_of(url: str) -> tuple[AsyncOpenAI, str]:
    """A client of the server at `url`, and the base of its API. The key is read from REASON_API_KEY."""
    from openai import AsyncOpenAI

    base = url.rstrip("/")
    base = base if base.endswith("/v1") else f"{base}/v1"
    key = os.environ.get("REASON_API_KEY") or "none"
    return AsyncOpenAI(base_url=base, api_key=key, max_retries=0), base
