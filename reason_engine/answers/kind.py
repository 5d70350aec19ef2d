"""What kind of answer a question wants, from its words alone.

The order of the rules: code, choice, free text that was asked for, mathematics, a number, yes or no; what none of them
fits is free text. A form that the user names himself ("only the letter", "as JSON") wins over all of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

AnswerKind = Literal["number", "expression", "choice", "yes-no", "words", "code", "json", "tool", "free"]


@dataclass(frozen=True, slots=True)
class AnswerSpec:
    """What kind of answer a question wants. `options`: letter and text of each choice as listed; `percent`: the
    question asks for a percentage; `named`: the user named a form himself; `entry_point`: the function asked for."""

    kind: AnswerKind = "free"
    options: tuple[tuple[str, str], ...] = ()
    percent: bool = False
    named: bool = False
    entry_point: str | None = None


def infer(question: str) -> AnswerSpec:
    """The answer that a question wants, from its words alone."""
    if _CODE.search(question):
        return AnswerSpec("code")
    if len(options := tuple((m[1], m[2].strip()) for m in _OPTION.finditer(question))) >= 2:
        return AnswerSpec("choice", options)
    if _FREE.search(question[:200]):
        return AnswerSpec("free")
    if _LATEX.search(question):
        return AnswerSpec("expression")
    if re.search(r"\d", question) and _COUNT.search(question):
        return AnswerSpec("number", percent=bool(re.search(r"percent|%", question)))
    if _YES_NO.search(question):
        return AnswerSpec("yes-no")
    return AnswerSpec()


_CODE = re.compile(r"^\s*(?:def |class |#include)|```|(?:write|implement|complete|fix)\b.{0,60}\bfunction", re.M | re.I)
_OPTION = re.compile(r"(?:^|\s)\(?([A-J])[).:] ?([^\n]*)")
_FREE = re.compile(r"\b(?:write|summari[sz]e|translate|explain|describe|rewrite)\b", re.IGNORECASE)
_LATEX = re.compile(
    r"\\(?:frac|sqrt|boxed|\(|\[)|\$[^$]*[\\^_={][^$]*\$|\b(?:simplify|factor|solve for)\b", re.IGNORECASE
)
_COUNT = re.compile(r"\bhow (?:many|much|long|old|far)\b|\bwhat (?:is|was) the\b|\b(?:calculate|find)\b", re.IGNORECASE)
_YES_NO = re.compile(
    r"\byes or no\b|(?:^|[.?!\n] )(?:is|are|was|were|do|does|did|can|could|has|have)\b[^.?!]*\?\s*$", re.I
)
