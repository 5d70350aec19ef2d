"""What a reward model is shown of a solution: its steps with the marks of its format, and the places to read.

No tokens yet: a folder's own tokenizer makes them (`tokens`), or the server that runs the model (`pooling`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from reason_engine.engines.rewards.formats import RewardFormat
from reason_engine.errors import RequestError
from reason_engine.types import Message, Turns


@dataclass(frozen=True, slots=True)
class Shown:
    """`turns` are finished; `text` follows them in the assistant's turn, or stands alone where there are no turns.
    `reads` are places in the text, each read at the last token that begins before it, or with `replies` numbers of
    turns, each read at the last token before the turn's text. `cuts` are places in the text that no token crosses."""

    turns: Turns
    text: str
    reads: tuple[int, ...]
    cuts: tuple[int, ...] = ()
    replies: bool = False


def show(format: RewardFormat, turns: Turns, text: str, ends: Sequence[int]) -> Shown:
    """The solution `text` of a conversation, whose steps end after so many characters. Raises RequestError."""
    if any(after <= before for before, after in pairwise((0, *ends))):
        raise RequestError("the ends of steps must grow", param="ends")
    if format.read == "step":
        return Shown(turns, text, tuple(ends))
    steps = [_without_mark(format, text[start:end]) for start, end in pairwise((0, *ends))]
    if format.layout == "turns":
        return _as_turns(format, turns, steps)
    before = question(turns) + format.opening if format.layout == "text" else ""
    whole, reads, cuts = before, list[int](), [len(before)] if before else []
    for number, step in enumerate(steps, 1):
        beginning = format.numbered.format(n=number)
        whole += (format.between if number > 1 else "") + ("" if step.startswith(beginning) else beginning) + step
        cuts.append(len(whole))
        whole += format.mark
        cuts.append(len(whole))
        reads.append(len(whole))
    shown = () if format.layout == "text" else _with_system(format, turns)
    return Shown(shown, whole, tuple(reads), tuple(cuts) if format.apart else ())


def question(turns: Turns) -> str:
    """A conversation as one text."""
    return "\n\n".join(turn.content for turn in turns if turn.content)


def _as_turns(format: RewardFormat, turns: Turns, steps: Sequence[str]) -> Shown:
    made, reads = list[Message](), list[int]()
    for number, step in enumerate(steps):
        made.append(Message("user", f"{question(turns)} {step}" if number == 0 else step))
        reads.append(len(made))
        made.append(Message("assistant", format.mark))
    return Shown(tuple(made), "", tuple(reads), replies=True)


def _with_system(format: RewardFormat, turns: Turns) -> Turns:
    """The format's system turn in place of the client's, whose text goes before the first turn's."""
    if format.system is None:
        return turns
    said = [turn.content for turn in turns if turn.role in ("system", "developer")]
    first, *rest = [turn for turn in turns if turn.role not in ("system", "developer")] or [Message("user")]
    asked = Message(first.role, "\n\n".join([*said, first.content]))
    return (Message("system", format.system), asked, *rest)


def _without_mark(format: RewardFormat, step: str) -> str:
    bare = step.strip()
    return bare.replace(format.mark, " ") if format.layout != "turns" and format.mark.strip() else bare
