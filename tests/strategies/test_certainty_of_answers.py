"""How sure a calibrated stage is of its answer: of a path's value, of its text, by votes, by a checker."""

from __future__ import annotations

import math

import pytest

from reason_engine.strategies.auto import certainty
from reason_engine.strategies.auto.certainty import answer_tokens
from reason_engine.types import Answer, Path, TokenLogprob

HALF = math.log(0.5)


def path(*tokens: tuple[str, float], value: str | None = None, finish: str = "stop") -> Path:
    made = tuple(TokenLogprob(-1, text, logprob) for text, logprob in tokens)
    return Path(0, "", "".join(text for text, _ in tokens), logprobs=made, finish_reason=finish, answer=value)  # pyright: ignore[reportArgumentType]


RAMBLING = (
    ("We", -3.0),
    (" think", -2.0),
    (" 7", -4.0),
    (" no", -3.0),
    (" \\boxed{", -1.0),
    ("7", HALF),
    ("2", 0.0),
    ("}", -1.0),
)


def test_a_value_is_as_sure_as_its_own_tokens() -> None:
    made = path(*RAMBLING, value="72")
    assert certainty(Answer(made, "72")) == pytest.approx(math.sqrt(0.5))
    assert certainty(Answer(made, "72"), of="text") < 1e-6


@pytest.mark.parametrize(
    ("tokens", "value", "wrote"),
    [
        (("1", ",", "234", "."), "1234", ("1", ",", "234")),
        (("\\frac{", "3", "}{", "4", "}"), "3/4", ("3", "}{", "4")),
        (("Yes", ", it", " is yes"), "yes", (" is yes",)),
        (("4", " then", " 4"), "4", (" 4",)),
        (("a", "b"), "xyz", ("a", "b")),
        (("a", "b"), None, ("a", "b")),
        (("-", "?"), "-", ("-", "?")),
        ((), "4", ()),
    ],
)
def test_the_tokens_that_wrote_the_value(tokens: tuple[str, ...], value: str | None, wrote: tuple[str, ...]) -> None:
    made = [TokenLogprob(-1, token, -1.0) for token in tokens]
    found = [token.token for token in answer_tokens(made, value)]
    # What stands between two of its letters is written with it; a token without any is not looked at.
    assert [text for text in found if any(map(str.isalnum, text))] == [
        text for text in wrote if any(map(str.isalnum, text))
    ]


def test_what_tells_nothing_is_not_sure() -> None:
    assert certainty(Answer()) == 0.0
    assert certainty(Answer(path(("4", 0.0), value="4", finish="length"), "4")) == 0.0
    assert certainty(Answer(path(value="4"), "4")) == 0.0


def test_a_share_of_votes_is_the_certainty() -> None:
    assert certainty(Answer(path(("4", -9.0), value="4"), "4", confidence=0.75)) == 0.75
    assert certainty(Answer(path(("4", -9.0), value="4"), "4", confidence=3.0)) == 1.0
