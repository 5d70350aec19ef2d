"""The drawing of a trace: one line a node, equal siblings once, the newest nodes while it grows."""

from __future__ import annotations

import pytest

from reason_engine.cli.terminal.tree import draw, printable, tree_of
from reason_engine.runtime.trace import (
    Closed,
    Delta,
    Event,
    Opened,
    Proposed,
    Sampled,
    Scored,
    Trace,
    from_json,
    to_json,
)

EVENTS: list[Event] = [
    Opened(0, None, "tree"),
    Opened(1, 0, "level 1"),
    Opened(2, 1, "path", "path"),
    Opened(3, 1, "path", "path"),
    Opened(4, 1, "path", "path"),
    Delta(2, "10 - 4"),
    Sampled(2, "10 - 4 = 6\nleft: 5 6 6", "stop", 9, "6"),
    Sampled(3, "4 + 5 = 9", "length", 5),
    Sampled(4, "4 + 5 = 9", "length", 5),
    Scored(2, 0.934, "value"),
    Closed(1, {"depth": 1, "states": [1, 2], "votes": [["6", 2], ["9", 1]]}),
    Opened(5, 0, "finish"),
    Opened(6, 5, "path", "path"),
    Sampled(6, "Answer: 24", "stop", 3, "24"),
    Proposed(6, "24", 1.0),
    Closed(0),
]


def test_the_whole_tree() -> None:
    assert draw(Trace.from_events(EVENTS, {"answer": "24"})).splitlines() == [
        "tree: 24",
        "├── level 1   depth 1, 6 ×2, 9 ×1",
        "│   ├── 10 - 4 = 6 | left: 5 6 6   value 0.93",
        "│   └── 4 + 5 = 9   (length)   ×2",
        "└── finish",
        "    └── Answer: 24",
    ]


def test_too_many_nodes_are_counted() -> None:
    lines = draw(Trace.from_events(EVENTS), most=3).splitlines()
    assert lines[-1] == "└── … and 3 more nodes"
    assert "10 - 4" in "".join(lines)


def test_while_it_grows_the_newest_are_shown_under_their_parents() -> None:
    from rich.console import Console

    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(tree_of(Trace.from_events(EVENTS), most=2, newest=True))
    said = capture.get()
    assert "Answer: 24" in said and "finish" in said and "10 - 4" not in said


def test_a_long_text_keeps_both_ends() -> None:
    events = [Opened(0, None, "direct"), Opened(1, 0, "path", "path"), Delta(1, "begin " + "x" * 500 + " end")]
    (_, line) = draw(Trace.from_events(events)).splitlines()
    assert "begin" in line and line.endswith("end") and " … " in line and len(line) < 100


def test_markup_in_a_text_stays_text() -> None:
    events = [Opened(0, None, "direct"), Opened(1, 0, "path", "path"), Delta(1, "[bold]a[/] [link=x]b")]
    assert draw(Trace.from_events(events)).endswith("[bold]a[/] [link=x]b")


def test_a_text_cannot_steer_the_terminal() -> None:
    events = [Opened(0, None, "direct"), Opened(1, 0, "path", "path"), Delta(1, "a\x1b[2Jb\x07\x9bc\rd")]
    assert draw(Trace.from_events(events)).endswith("a�[2Jb��c | d")
    assert printable("a\tb\nc\x1b") == "a\tb\nc�"


def test_nothing_yet() -> None:
    assert draw(Trace()) == "…"


@pytest.mark.parametrize("event", EVENTS)
def test_events_travel_as_json(event: Event) -> None:
    assert from_json(to_json(event)) == event


@pytest.mark.parametrize("value", [{}, {"kind": "nosuch"}, {"kind": "delta"}, {"kind": "delta", "node": 1, "txt": ""}])
def test_what_is_no_event_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not an event"):
        from_json(value)
