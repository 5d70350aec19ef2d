"""`reason chat`: a terminal chat that shows the tree as it grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from reason_engine.cli._options import (
    EngineName,
    Knowledge,
    Model,
    Seed,
    Sets,
    StrategyName,
    Threads,
    Url,
    one_of,
    parse_sets,
)

if TYPE_CHECKING:
    from reason_engine.cli._chat import Chat

HELP = """/strategy NAME    answer with this strategy from now on (reason strategies)
/set KEY=VALUE    set one of its options; /set alone forgets them all
/trace            the whole tree of the last answer
/new              start a new conversation
/quit             leave (so does Ctrl-D); Ctrl-C stops an answer"""


def add_to(app: typer.Typer) -> None:
    app.command("chat", help="Chat in the terminal and watch the search grow.")(chat)


def chat(
    model: Model = None,
    url: Url = None,
    engine: EngineName = "auto",
    strategy: StrategyName = None,
    sets: Sets = None,
    seed: Seed = 0,
    threads: Threads = None,
    knowledge: Knowledge = None,
) -> None:
    """Chat until the input ends."""
    import asyncio

    from rich.console import Console

    from reason_engine.cli._ask import Wish, asker, pick_strategy
    from reason_engine.cli._chat import Chat

    one_of(model, url)
    wish = Wish(strategy, parse_sets(sets), seed=seed)
    if not url:
        pick_strategy(wish.strategy, wish.options)
    source = asker(model, url, engine, threads, knowledge)
    console = Console()

    async def run() -> None:
        async with source:
            await converse(Chat(source, console, wish))

    asyncio.run(run())


async def converse(talk: Chat) -> None:
    """Read lines until the input ends or `/quit`."""
    talk.console.print("reason chat: /help for commands", style="dim")
    while (line := await talk.read()) is not None:
        word, _, rest = line.strip().partition(" ")
        if word == "/quit":
            return
        if word == "/help":
            talk.console.print(HELP, highlight=False, markup=False)
        elif word == "/new":
            talk.forget()
        elif word == "/trace":
            talk.trace()
        elif word == "/strategy":
            talk.use(rest.strip() or None)
        elif word == "/set":
            talk.set(rest.strip())
        elif word.startswith("/"):
            talk.console.print(f"no command {word}; /help lists them", markup=False)
        elif word:
            await talk.answer(line)
