"""`reason chat`: a conversation in the terminal that shows the tree of each answer as it grows."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from reason_engine.cli import terminal
from reason_engine.cli.solve import summary
from reason_engine.errors import ReasonError

if TYPE_CHECKING:
    import asyncio

    from rich.console import Console, RenderableType

    from reason_engine.cli.terminal.ask import Asker, AskOptions, Reply
    from reason_engine.runtime.trace import Event
    from reason_engine.types import Message

HELP = """/strategy NAME    answer with this strategy from now on (reason strategies)
/set KEY=VALUE    set one of its options; /set alone forgets them all
/trace            the whole tree of the last answer
/new              start a new conversation
/quit             leave (so does Ctrl-D); Ctrl-C stops an answer"""
FRAMES_PER_SECOND = 8


def add_to(app: typer.Typer) -> None:
    app.command("chat", help="Chat in the terminal and watch the search grow.")(chat)


def chat(
    model: terminal.Model = None,
    url: terminal.Url = None,
    engine: terminal.EngineName = "auto",
    strategy: terminal.StrategyName = None,
    sets: terminal.Sets = None,
    seed: terminal.Seed = 0,
    threads: terminal.Threads = None,
    knowledge: terminal.Knowledge = None,
    reasoning_parser: terminal.ReasoningParser = None,
    tool_parser: terminal.ToolParser = None,
) -> None:
    """Chat until the input ends."""
    import asyncio

    from rich.console import Console

    from reason_engine.cli.terminal.ask import AskOptions, asker

    options = AskOptions(strategy, terminal.parse_sets(sets), seed=seed)
    source = asker(options, model, url, engine, threads, knowledge, (reasoning_parser, tool_parser))
    console = Console()

    async def run() -> None:
        async with source:
            await converse(Chat(source, console, options))

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
            talk.change(rest.strip() or None, {})
        elif word == "/set":
            talk.set(rest.strip())
        elif word.startswith("/"):
            talk.console.print(f"no command {word}; /help lists them", markup=False)
        elif word:
            await talk.answer(line)


class Chat:
    """A conversation with one model: its turns, and how questions are asked."""

    def __init__(self, source: Asker, console: Console, options: AskOptions) -> None:
        self.console = console
        self._source, self._options = source, options
        self._turns: list[Message] = []
        self._last: Reply | None = None

    async def read(self) -> str | None:
        """The next line; None at the end of the input."""
        import asyncio

        try:
            return await asyncio.to_thread(self.console.input, "[bold]>[/] ")
        except (EOFError, KeyboardInterrupt):
            return None

    def forget(self) -> None:
        """Start over."""
        self._turns.clear()
        self._last = None

    def set(self, pair: str) -> None:
        """Set an option of the strategy; nothing forgets all of them."""
        try:
            values = {**self._options.values, **terminal.parse_sets([pair])} if pair else {}
        except ReasonError as error:
            self._refuse(error)
        else:
            self.change(self._options.strategy, values)

    def trace(self) -> None:
        """The whole tree of the last answer."""
        from reason_engine.cli.terminal.tree import tree_of

        if self._last is None:
            self.console.print("nothing was answered yet", style="dim")
        else:
            self.console.print(tree_of(self._last.trace))

    async def answer(self, line: str) -> None:
        """Ask, show the tree while it grows, then the answer and what it cost."""
        import asyncio

        from reason_engine.cli.terminal.tree import printable
        from reason_engine.types import Message

        turns = [*self._turns, Message("user", line)]
        with self._growing_tree() as events:
            asking = asyncio.create_task(self._source.ask(turns, self._options, publish=events.append))
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
            self._refuse(error)
            return
        self._last, self._turns = reply, [*turns, Message("assistant", reply.content)]
        self.console.print(printable(reply.content), markup=False, highlight=False)
        self.console.print(summary(reply.reason, reply.usage), style="dim", markup=False)

    def change(self, strategy: str | None, values: dict[str, object]) -> None:
        """Answer with this strategy and these options; all others are at their defaults."""
        from dataclasses import replace

        from reason_engine.cli.terminal.ask import pick_strategy

        options = replace(self._options, strategy=strategy, values=values)
        try:
            pick_strategy(options)
        except ReasonError as error:
            self._refuse(error)
        else:
            self._options = options

    def _refuse(self, error: ReasonError) -> None:
        self.console.print(str(error), style="red", markup=False)

    @contextmanager
    def _growing_tree(self) -> Generator[list[Event]]:
        """Draws the events that are put in, on a terminal only, and takes the drawing away at the end."""
        from rich.live import Live
        from rich.text import Text

        from reason_engine.cli.terminal.tree import tree_of
        from reason_engine.runtime.trace import Trace

        events: list[Event] = []
        rows = max(8, self.console.height - 6)

        class Growing:
            def __rich__(self) -> RenderableType:
                if not events:
                    return Text("…", style="dim")
                return tree_of(Trace.from_events(events), most=rows, newest=True)

        if not self.console.is_terminal:
            yield events
            return
        with Live(Growing(), console=self.console, refresh_per_second=FRAMES_PER_SECOND, transient=True):
            yield events


@contextmanager
def _interrupts(task: asyncio.Task[Reply]) -> Generator[None]:
    """Ctrl-C ends the answer, not the chat, while one is being made."""
    import asyncio

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
