"""Options that several commands share, and what they mean."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reason_engine.errors import SetupError

if TYPE_CHECKING:
    from reason_engine.types import Limits

Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Checkpoint folder or hub name; none: reason-nano.")
]
Url = Annotated[
    str | None, typer.Option("--url", "-u", help="A running server instead, as http://127.0.0.1:8000.")
]
EngineName = Annotated[str, typer.Option("--engine", help="auto, embedded, vllm or openai.")]
StrategyName = Annotated[
    str | None, typer.Option("--strategy", "-s", help="Reasoning strategy: reason strategies.")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the strategy.")
]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, same search.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]
Tokens = Annotated[
    int | None, typer.Option("--tokens", min=1, help="Budget: generated tokens, all branches together.")
]
Seconds = Annotated[float | None, typer.Option("--seconds", min=0.001, help="Budget: seconds.")]
Samples = Annotated[int | None, typer.Option("--samples", min=1, help="Budget: generated sequences.")]
Knowledge = Annotated[
    Path | None,
    typer.Option(
        "--knowledge", metavar="DIR", help="Documents to retrieve from: Markdown, text, PDF, triples."
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Torch threads of the embedded engine.")
]


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


def limits(tokens: int | None, seconds: float | None, samples: int | None) -> Limits:
    """The budget that the options name."""
    from reason_engine.types import Limits

    return Limits(tokens, seconds, samples)


def one_of(model: str | None, url: str | None) -> None:
    """`--model` and `--url` exclude each other, since a server has its model."""
    if model and url:
        raise SetupError("--model and --url exclude each other: a server has its own model")


def show(value: Mapping[str, Any]) -> None:
    """One JSON object on a line of its own."""
    print(json.dumps(value, ensure_ascii=False), file=sys.stdout, flush=True)
