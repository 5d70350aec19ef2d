"""`reason chat`: a terminal chat that shows the tree as it grows.

One conversation in the terminal: turns, the strategy in use, and the live tree.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from reason_engine.cli.solve import summary
from reason_engine.cli.terminal.ask import Asker, Reply, Wish, pick_strategy
from reason_engine.cli.terminal.options import (
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
from reason_engine.cli.terminal.tree import printable, tree_of
from reason_engine.errors import ReasonError
from reason_engine.runtime.events import Event
from reason_engine.runtime.trace import Trace
from reason_engine.types import Message

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

    from reason_engine.cli.terminal.ask import Wish, asker, pick_strategy

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


FRAMES_PER_SECOND = 8


class Chat:
    """A conversation with one model."""

    def __init__(self, source: Asker, console: Console, wish: Wish) -> None:
        self.console = console
        self._source, self._wish = source, wish
        self._turns: list[Message] = []
        self._last: Reply | None = None

    async def read(self) -> str | None:
        """The next line; None at the end of the input."""
        try:
            return await asyncio.to_thread(self.console.input, "[bold]>[/] ")
        except (EOFError, KeyboardInterrupt):
            return None

    def forget(self) -> None:
        """Start over."""
        self._turns.clear()
        self._last = None

    def use(self, strategy: str | None) -> None:
        """Answer with this strategy; its options start at their defaults."""
        self._try(replace(self._wish, strategy=strategy, options={}))

    def set(self, pair: str) -> None:
        """Set an option of the strategy; nothing forgets all of them."""
        try:
            options = {**self._wish.options, **parse_sets([pair])} if pair else {}
        except ReasonError as error:
            self.console.print(str(error), style="red", markup=False)
            return
        self._try(replace(self._wish, options=options))

    def trace(self) -> None:
        """The whole tree of the last answer."""
        if self._last is None:
            self.console.print("nothing was answered yet", style="dim")
        else:
            self.console.print(tree_of(self._last.trace))

    async def answer(self, line: str) -> None:
        """Ask, show the tree while it grows, then the answer and what it cost."""
        turns = [*self._turns, Message("user", line)]
        with self._watching() as events:
            asking = asyncio.create_task(self._source.ask(turns, self._wish, publish=events.append))
            try:
                with _interrupts(asking):
                    await asyncio.wait([asking])
            finally:
                asking.cancel()
                await asyncio.wait([asking])
        if asking.cancelled():
            self.console.print("stopped", style="yellow")
            return
        try:
            reply = asking.result()
        except ReasonError as error:
            self.console.print(str(error), style="red", markup=False)
            return
        self._last, self._turns = reply, [*turns, Message("assistant", reply.content)]
        self.console.print(printable(reply.content), markup=False, highlight=False)
        self.console.print(summary(reply.reason, reply.usage), style="dim", markup=False)

    def _try(self, wish: Wish) -> None:
        try:
            pick_strategy(wish.strategy, wish.options)
        except ReasonError as error:
            self.console.print(str(error), style="red", markup=False)
            return
        self._wish = wish

    @contextmanager
    def _watching(self) -> Generator[list[Event]]:
        """Draws what happens, on a terminal only, and takes the drawing away at the end."""
        events: list[Event] = []
        rows = max(8, self.console.height - 6)

        class Growing:
            def __rich__(self) -> RenderableType:
                return (
                    tree_of(Trace.from_events(events), most=rows, tail=True)
                    if events
                    else Text("…", style="dim")
                )

        if not self.console.is_terminal:
            yield events
            return
        with Live(Growing(), console=self.console, refresh_per_second=FRAMES_PER_SECOND, transient=True):
            yield events


@contextmanager
def _interrupts(task: asyncio.Task[Reply]) -> Generator[None]:
    """Ctrl-C ends the answer, not the chat, while one is being made."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGINT, task.cancel)
    except (NotImplementedError, ValueError, RuntimeError):  # not here (Windows), or not in the main thread
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
