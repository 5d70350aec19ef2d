"""`reason solve`: one question, answered in this process or by a running server."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import typer

from reason_engine.cli.terminal import (
    AsJson,
    EngineName,
    Knowledge,
    Model,
    Samples,
    Seconds,
    Seed,
    Sets,
    StrategyName,
    Threads,
    Tokens,
    Url,
    limits,
    one_of,
    parse_sets,
    show,
)


def add_to(app: typer.Typer) -> None:
    app.command("solve", help="Answer one question, without a server.")(solve)


def solve(
    question: str = typer.Argument(help="The question; `-` reads it from standard input."),
    model: Model = None,
    url: Url = None,
    engine: EngineName = "auto",
    strategy: StrategyName = None,
    sets: Sets = None,
    tokens: Tokens = None,
    seconds: Seconds = None,
    samples: Samples = None,
    seed: Seed = 0,
    threads: Threads = None,
    knowledge: Knowledge = None,
    trace: bool = typer.Option(False, "--trace", help="Print the search as a tree."),
    as_json: AsJson = False,
) -> None:
    """Answer one question."""
    import asyncio

    from reason_engine.cli.terminal.ask import AskOptions, Reply, asker, pick_strategy
    from reason_engine.cli.terminal.tree import draw, printable
    from reason_engine.types import Message

    one_of(model, url)
    options = AskOptions(strategy, parse_sets(sets), limits(tokens, seconds, samples), seed)
    if not url:
        pick_strategy(options)
    source = asker(model, url, engine, threads, knowledge)
    text = sys.stdin.read().strip() if question == "-" else question

    async def run() -> Reply:
        async with source:
            return await source.ask([Message("user", text)], options)

    reply = asyncio.run(run())
    if as_json:
        found = {name: getattr(reply, name) for name in ("content", "reasoning", "reason", "usage")}
        show({**found, **({"trace": reply.trace.to_json()} if trace else {})})
        return
    if trace:
        print(draw(reply.trace), end="\n\n")
    print(printable(reply.content) if sys.stdout.isatty() else reply.content)
    print(printable(summary(reply.reason, reply.usage)), file=sys.stderr)
    for source in reply.reason.get("sources", ()):
        print(printable(f"[{source['n']}] {source['source']}"), file=sys.stderr)


def summary(reason: Mapping[str, Any], usage: Mapping[str, Any]) -> str:
    """What the answer cost, in one line."""
    confidence = reason.get("confidence")
    parts = [
        str(reason.get("strategy", "")),
        f"answer {reason['answer']}" if reason.get("answer") is not None else "no answer",
        f"confidence {confidence:.2f}" if confidence is not None else "",
        f"{reason.get('samples')} samples",
        f"{usage.get('completion_tokens')} tokens",
        f"{reason.get('seconds', 0):.2f} s",
        str(reason.get("stopped", "")),
    ]
    return " · ".join(filter(None, parts))
