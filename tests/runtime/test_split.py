"""Reasoning and content: the same however the text is cut into pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reason_engine.runtime.stream_text import Borders, Piece, Splitter

STEPS = Borders(marker="Answer:")
THINKS = Borders("<think>", "</think>")
OPENED = Borders("<think>", "</think>", thinking=True)


def split(text: str, borders: Borders) -> tuple[str | None, str, bool]:
    """(reasoning or None, content, whether a stop string cut it) of a whole text."""
    splitter = Splitter(borders)
    pieces = splitter.feed(text) + splitter.finish()
    reasoning = "".join(p.text for p in pieces if p.field == "reasoning")
    return reasoning or None, "".join(p.text for p in pieces if p.field == "content"), splitter.stopped


@pytest.mark.parametrize(
    ("text", "borders", "reasoning", "content"),
    [
        ("4 + 4 = 8\nAnswer: 8", STEPS, "4 + 4 = 8", "Answer: 8"),
        ("4 + 4 = 8\n\n  Answer: 8\n", STEPS, "4 + 4 = 8", "Answer: 8\n"),
        ("Answer: 8", STEPS, None, "Answer: 8"),
        ("The Answer: none\nAnswer: 8", STEPS, "The Answer: none", "Answer: 8"),
        ("no marker here", STEPS, "no marker here", "no marker here"),
        ("so\nAnswer", STEPS, "so\nAnswer", "so\nAnswer"),
        ("plain", Borders(), None, "plain"),
        ("<think>\nhm\n</think>\n\nIt is 8.", THINKS, "hm", "It is 8."),
        ("It is 8.", THINKS, None, "It is 8."),
        ("hm\n</think>\n\nIt is 8.", OPENED, "hm", "It is 8."),
        ("hm, never ends", OPENED, "hm, never ends", ""),
        ("<think></think>yes", THINKS, None, "yes"),
        ("a < b", THINKS, None, "a < b"),
        ("", STEPS, None, ""),
        ("one two STOP three", Borders(stop=("STOP",)), None, "one two "),
        ("why STOP\nAnswer: 1 STOP 2", Borders(marker="Answer:", stop=(" STOP",)), "why STOP", "Answer: 1"),
        ("abcab", Borders(stop=("bca", "abc")), None, ""),
    ],
)
def test_whole_text(text: str, borders: Borders, reasoning: str | None, content: str) -> None:
    assert split(text, borders)[:2] == (reasoning, content)


def test_a_tool_call_is_held_until_the_end_tells() -> None:
    borders = Borders(calls="<tool_call>")
    for called, content in ((True, "I look."), (False, 'I look.\n<tool_call>{"na')):
        splitter = Splitter(borders)
        pieces = splitter.feed("I look.\n<tool") + splitter.feed('_call>{"na') + splitter.finish(called=called)
        assert "".join(piece.text for piece in pieces) == content


@pytest.mark.parametrize(
    ("text", "called", "reasoning", "content"),
    [
        ("I look.\n<tool_call>{}", True, "I look.", ""),
        ("<tool_call>{}", True, "", ""),
        ("I look.\n<tool_call>{", False, "I look.", "I look.\n<tool_call>{"),
        ("so\nAnswer: 8\n<tool_call>{}", True, "so", "Answer: 8"),
        ("a < b", False, "a < b", "a < b"),
    ],
)
def test_a_tool_call_may_come_where_a_marker_was_waited_for(
    text: str, called: bool, reasoning: str, content: str
) -> None:
    for size in (1, 3, 100):
        splitter = Splitter(Borders(marker="Answer:", calls="<tool_call>"))
        pieces = [
            piece for i in range(0, len(text), size) for piece in splitter.feed(text[i : i + size])
        ] + splitter.finish(called=called)
        said = {field: "".join(p.text for p in pieces if p.field == field) for field in ("reasoning", "content")}
        assert said == {"reasoning": reasoning, "content": content}


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "Answer:", "STOP", " ", "\n", "a", "Ans", "</th"]), max_size=20
    ).map("".join),
    st.lists(st.integers(1, 5), min_size=1, max_size=60),
    st.sampled_from([STEPS, THINKS, OPENED, Borders(), Borders(marker="Answer:", stop=("STOP", "a A"))]),
)
def test_pieces_join_to_the_whole(text: str, sizes: list[int], borders: Borders) -> None:
    splitter, pieces, at = Splitter(borders), list[Piece](), 0
    for size in sizes:
        pieces += splitter.feed(text[at : at + size])
        at += size
    pieces += splitter.feed(text[at:]) + splitter.finish()
    joined = {f: "".join(p.text for p in pieces if p.field == f) for f in ("reasoning", "content")}
    assert (joined["reasoning"] or None, joined["content"]) == split(text, borders)[:2]


def test_text_is_shown_as_soon_as_it_is_certain() -> None:
    splitter = Splitter(STEPS)
    assert splitter.feed("one") == [Piece("reasoning", "one")]
    assert splitter.feed(" two\nAn") == [Piece("reasoning", " two")]
    assert splitter.feed("t") == [Piece("reasoning", "\nAnt")]
    assert splitter.feed("\nAnswer:") == [Piece("content", "Answer:")]
    assert splitter.feed(" 8") == [Piece("content", " 8")]
