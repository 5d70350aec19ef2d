"""Retrieved text in a prompt: quoted line by line before the question, and nothing in it can leave its line.

    Sources:
    [1] The red box holds 34 stamps.
    [2] The train to Tervel leaves from platform 7.

    How many stamps does the red box hold?

A document may be written by anyone. So a passage becomes one line (no white space but single spaces, no control or
invisible characters), what has the form of a chat format's mark loses it, the model's own special tokens are broken
letter from letter, and a number in brackets that would pass for a citation gets round ones.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace

from reason_engine.contracts import Retriever
from reason_engine.types import Passage

TOP = 4
"""Passages of one request, at most."""
QUERY = 2_000
"""Characters of the question that are searched for: its end, where the question proper stands."""


def quoted(question: str, passages: Sequence[Passage], header: str) -> str:
    """The question with what was found before it; as it is where nothing was."""
    if not passages:
        return question
    rows = [f"[{number}] {passage.text}" for number, passage in enumerate(passages, 1)]
    return "\n".join(([header] if header else []) + rows) + f"\n\n{question}"


async def fetch(knowledge: Retriever, query: str, k: int, specials: Sequence[str] = ()) -> list[Passage]:
    """The passages nearest to the query, clean. `specials`: what the model's tokenizer takes for control tokens."""
    found = await knowledge.retrieve(query[-QUERY:], k)
    passages = [replace(passage, text=clean(passage.text, specials)) for passage in found]
    return [passage for passage in passages if passage.text]


def fitting(passages: Sequence[Passage], count: Callable[[str], int], room: int) -> tuple[Passage, ...]:
    """The first passages whose lines have at most `room` tokens together; the first of all is cut if it has more."""
    kept: list[Passage] = []
    for passage in passages:
        cost = count(f"[{len(kept) + 1}] {passage.text}\n")
        while cost > room and not kept and len(passage.text) > 1:
            passage = replace(passage, text=passage.text[: len(passage.text) // 2].rstrip())
            cost = count(f"[1] {passage.text}\n")
        if cost > room:
            break
        room -= cost
        kept.append(passage)
    return tuple(kept)


def clean(text: str, specials: Sequence[str] = ()) -> str:
    """One line of plain text in which nothing is a control token, a role or a citation."""
    shown = "".join(" " if sign.isspace() else sign for sign in text if sign.isspace() or _visible(sign))
    line = neutral(" ".join(shown.split()), specials)
    return _CITATION.sub(r"(\1)", line)


def neutral(text: str, specials: Sequence[str] = ()) -> str:
    """The text without anything that a chat format takes for its own: `<|im_end|>` becomes `‹|im_end|›`."""
    text = _ANGLE.sub(lambda mark: mark[0].replace("<", "‹").replace(">", "›"), text)
    text = _BRACKET.sub(r"(\1)", text)
    for special in specials:
        if len(special) > 1 and special in text:
            text = text.replace(special, " ".join(special))
    return text


def _visible(sign: str) -> bool:
    return unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Co", "Cn")


# A mark hugs its brackets: `<think>`, `</s>`, `<|im_end|>`, `<<SYS>>`, `<｜User｜>`; a comparison has spaces.
_ANGLE = re.compile(r"<+(?=[^\s<>])[^<>\n]{0,80}>+|<+[|｜][^\s<>]*|[|｜]>+")
_BRACKET = re.compile(r"\[(/?[A-Za-z_]{2,40})\]")
_CITATION = re.compile(r"\[(\d{1,9})\]")
