"""`reason solve`: one question, answered in this process or by a running server."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import typer
from typer import Argument, Option

from reason_engine.cli import terminal


def add_to(app: typer.Typer) -> None:
    app.command("solve", help="Answer one question, without a server.")(solve)


def solve(
    question: str = Argument(help="The question; `-` reads it from standard input."),
    model: terminal.Model = None,
    url: terminal.Url = None,
    engine: terminal.EngineName = "auto",
    strategy: terminal.StrategyName = None,
    sets: terminal.Sets = None,
    tokens: terminal.Tokens = None,
    seconds: terminal.Seconds = None,
    samples: terminal.Samples = None,
    seed: terminal.Seed = 0,
    threads: terminal.Threads = None,
    knowledge: terminal.Knowledge = None,
    reasoning_parser: terminal.ReasoningParser = None,
    tool_parser: terminal.ToolParser = None,
    trace: bool = Option(False, "--trace", help="Print the search as a tree."),
    as_json: terminal.AsJson = False,
) -> None:
    """Answer one question."""
    import asyncio

    from reason_engine.cli.terminal.ask import AskOptions, Reply, asker
    from reason_engine.cli.terminal.tree import draw, printable
    from reason_engine.types import Message

    options = AskOptions(strategy, terminal.parse_sets(sets), terminal.limits(tokens, seconds, samples), seed)
    source = asker(options, model, url, engine, threads, knowledge, (reasoning_parser, tool_parser))
    text = sys.stdin.read().strip() if question == "-" else question

    async def run() -> Reply:
        async with source:
            return await source.ask([Message("user", text)], options)

    reply = asyncio.run(run())
    if as_json:
        found = {name: getattr(reply, name) for name in ("content", "reasoning", "reason", "usage")}
        terminal.show({**found, **({"trace": reply.trace.to_json()} if trace else {})})
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
