"""Where a step of a solution ends."""

from __future__ import annotations

import pytest

from reason_engine.profile import Profile
from reason_engine.steps import BLANK_LINE, is_step, step_ends, step_pieces

LONG = "This is a sentence of its own."


def test_without_a_profile_a_step_ends_at_a_blank_line() -> None:
    assert Profile().step_end == BLANK_LINE == "\n\n"


def test_a_named_end_means_exactly_that() -> None:
    assert step_pieces("a\n\nb\n", "\n") == ["a", "", "b", ""]
    assert step_ends("a\n\nb\n", "\n") == (1, 4)
    assert is_step("a", "\n")
    assert not is_step(" ", "\n")


def test_a_short_piece_belongs_to_what_follows() -> None:
    text = f"## Step 1\n\n{LONG}\n\n{LONG}\n\n72"
    assert step_pieces(text, BLANK_LINE) == [f"## Step 1\n\n{LONG}", LONG, "72"]
    assert step_ends(text, BLANK_LINE) == (11 + len(LONG), 13 + 2 * len(LONG), len(text))


@pytest.mark.parametrize(
    "block",
    [
        "```python\nx = 1  # and more of it\n\ny = 2\n```",
        "So it is, for all we know,\n\\[\na + b\n\n= c\n\\]",
        "So it is, for all we know,\n$$\na + b\n\n= c\n$$",
    ],
)
def test_a_block_that_is_open_is_not_cut(block: str) -> None:
    assert step_pieces(f"{block}\n\n{LONG}", BLANK_LINE) == [block, LONG]
    assert not is_step(block.partition("\n\n")[0], BLANK_LINE)
    assert is_step(block, BLANK_LINE)


def test_space_between_the_lines_of_mathematics_opens_nothing() -> None:
    assert is_step(r"\[ \begin{aligned} a &= b \\[4pt] &= c \end{aligned} \]", BLANK_LINE)


@pytest.mark.parametrize("text", ["", "\n\n", "\n\n\n\n\nx", f"{LONG}\n\n", "```\n\n" * 9, LONG + "\n\n\n" + LONG])
@pytest.mark.parametrize("end", ["\n", BLANK_LINE, "; "])
def test_pieces_joined_are_the_text(text: str, end: str) -> None:
    assert end.join(step_pieces(text, end)) == text


def test_hostile_text_is_cut_in_linear_time() -> None:
    text = "```\n\n" + "\\[x\n\n" * 100_000
    assert step_pieces(text, BLANK_LINE) == [text]
