"""The kinds of answers, and what one question wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AnswerKind = Literal["number", "expression", "choice", "yes-no", "words", "code", "json", "tool", "free"]


@dataclass(frozen=True, slots=True)
class AnswerSpec:
    """What kind of answer a question wants. `options`: letter and text of each choice as listed; `percent`: the
    question asks for a percentage; `named`: the user named a form himself, so none is asked for; `entry_point`: the
    function asked for."""

    kind: AnswerKind = "free"
    options: tuple[tuple[str, str], ...] = ()
    percent: bool = False
    named: bool = False
    entry_point: str | None = None
