"""`reason chat`: commands, turns, and a wrong word that does not end the conversation."""

from __future__ import annotations

import asyncio
import io
import signal
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from reason_engine.cli.chat import Chat, converse
from reason_engine.cli.terminal.ask import AskOptions, Reply
from reason_engine.errors import EngineError
from reason_engine.runtime.trace import Delta, Opened, Trace
from reason_engine.types import Message


class Source:
    """Answers with the number of turns it was given, and remembers how it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Sequence[Message], AskOptions]] = []

    async def __aenter__(self) -> Source:
        return self

    async def __aexit__(self, *why: object) -> None:
        pass

    async def ask(self, turns: Sequence[Message], options: AskOptions, *, publish: Any = None) -> Reply:
        self.asked.append((turns, options))
        if turns[-1].content == "break":
            raise EngineError("it broke")
        events = [Opened(0, None, "direct"), Opened(1, 0, "path", "path"), Delta(1, "seven")]
        for event in events:
            publish(event)
        return Reply(f"turn {len(turns)}", None, {"strategy": "direct"}, {}, Trace.from_events(events))


@pytest.fixture
def source() -> Source:
    return Source()


async def talk(source: Source, *lines: str, terminal: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=terminal)
    waiting = iter(lines)
    chat = Chat(source, console, AskOptions())

    async def read() -> str | None:
        return next(waiting, None)

    chat.read = read
    await converse(chat)
    return out.getvalue()


async def test_earlier_turns_are_sent_along(source: Source) -> None:
    said = await talk(source, "one", "two", "/new", "three")
    assert [len(turns) for turns, _ in source.asked] == [1, 3, 1]
    assert [turn.role for turn in source.asked[1][0]] == ["user", "assistant", "user"]
    assert "turn 3" in said


async def test_strategy_and_options_apply_from_then_on(source: Source) -> None:
    await talk(source, "/strategy self-consistency", "/set n=3", "one", "/set", "two", "/strategy", "three")
    asked = [options for _, options in source.asked]
    assert [(one.strategy, dict(one.values)) for one in asked] == [
        ("self-consistency", {"n": 3}),
        ("self-consistency", {}),
        (None, {}),
    ]


@pytest.mark.parametrize("line", ["/strategy nosuch", "/set n=0", "/set n", "/set nosuch=1", "/nosuch", "break"])
async def test_a_mistake_is_told_and_changes_nothing(source: Source, line: str) -> None:
    said = await talk(source, "/strategy self-consistency", line, "one")
    assert source.asked[-1][1] == AskOptions("self-consistency")
    assert "turn 1" in said
    assert len(said.splitlines()) >= 4


async def test_trace_shows_the_tree_of_the_last_answer(source: Source) -> None:
    said = await talk(source, "/trace", "one", "/trace")
    assert "nothing was answered yet" in said
    assert "└── seven" in said


async def test_a_terminal_shows_the_tree_while_it_grows(source: Source) -> None:
    assert "seven" in await talk(source, "one", terminal=True)


async def test_quit_and_help(source: Source) -> None:
    said = await talk(source, "/help", "/quit", "one")
    assert "/strategy NAME" in said and not source.asked


async def test_cancelling_the_chat_itself_is_not_swallowed(source: Source) -> None:
    asked, ended = hang(source)
    task = asyncio.create_task(talk(source, "one", "/trace"))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_ctrl_c_stops_the_answer_and_not_the_chat(source: Source) -> None:
    asked, ended = hang(source)
    task = asyncio.create_task(talk(source, "one", "/trace"))
    await asked.wait()
    signal.raise_signal(signal.SIGINT)
    said = await task
    assert ended.is_set()
    assert "stopped" in said and "nothing was answered yet" in said


def hang(source: Source) -> tuple[asyncio.Event, asyncio.Event]:
    """From now on the source never answers; (a question came, it was given up)."""
    asked, ended = asyncio.Event(), asyncio.Event()

    async def forever(*args: Any, **more: Any) -> Reply:
        asked.set()
        try:
            await asyncio.Event().wait()
            raise AssertionError
        finally:
            ended.set()

    source.ask = forever
    return asked, ended


def test_the_command_talks_to_a_model(reason, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    ran = reason("chat", "--engine", "scripted")
    assert ran.code == 0 and "Answer: hello" in ran.out


def test_the_command_talks_to_a_server(reason, server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\nagain\n"))
    ran = reason("chat", "--url", server.url)
    assert ran.code == 0 and "Answer: again" in ran.out
