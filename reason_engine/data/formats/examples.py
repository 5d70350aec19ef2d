"""Examples and their file form: JSON lines of chat messages, as every trainer reads them.

One line: `{"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}], "family": …,
"weight": …, "skip": [[start, end], …]}`. Only `messages` is required, and the last message is the assistant's.
`skip` are character ranges of that last message that teach nothing (a deliberate mistake that is corrected later).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reason_engine.errors import SetupError

STEPS = "Think step by step."


@dataclass(frozen=True, slots=True)
class Example:
    """A question and the answer to learn. `weight` multiplies the loss of each of the answer's tokens."""

    question: str
    answer: str
    family: str = ""
    weight: float = 1.0
    skip: tuple[tuple[int, int], ...] = ()
    history: tuple[tuple[str, str], ...] = ()

    def messages(self) -> list[dict[str, str]]:
        """The conversation, the last message being the answer."""
        turns = [*self.history, (self.question, self.answer)]
        roles = ("user", "assistant")
        return [
            {"role": role, "content": text} for pair in turns for role, text in zip(roles, pair, strict=True)
        ]


def write(path: Path, examples: Iterable[Example]) -> int:
    """Write examples as JSON lines; the number written."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            count += 1
            file.write(json.dumps(row(example), ensure_ascii=False) + "\n")
    return count


def row(example: Example) -> dict[str, Any]:
    """The example as the mapping that stands in a file; `weight` and `skip` only where they say something."""
    found: dict[str, Any] = {"messages": example.messages(), "family": example.family}
    if example.weight != 1.0:
        found["weight"] = example.weight
    if example.skip:
        found["skip"] = [list(span) for span in example.skip]
    return found


def read(path: Path) -> Iterator[Example]:
    """The examples of a file. Raises SetupError that names file and line on the first bad row."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _parse(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: {error}") from None


def _parse(line: str, where: str) -> Example:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise SetupError(f"{where}: not JSON: {error}") from None
    turns = found.get("messages") if isinstance(found, dict) else None
    if not isinstance(turns, list) or len(turns) < 2 or len(turns) % 2:
        raise SetupError(f"{where}: `messages` must be pairs of a user's and an assistant's turn")
    for place, turn in enumerate(turns):
        role = ("user", "assistant")[place % 2]
        if not isinstance(turn, dict) or turn.get("role") != role or not isinstance(turn.get("content"), str):
            raise SetupError(f"{where}: `messages[{place}]` must be a turn of the {role} with text `content`")
    texts = [turn["content"] for turn in turns]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    try:
        weight, skip = (
            float(found.get("weight", 1.0)),
            tuple((int(a), int(b)) for a, b in found.get("skip", ())),
        )
    except (TypeError, ValueError):
        raise SetupError(f"{where}: `weight` must be a number and `skip` a list of [start, end]") from None
    return Example(*pairs[-1], str(found.get("family", "")), weight, skip, tuple(pairs[:-1]))
