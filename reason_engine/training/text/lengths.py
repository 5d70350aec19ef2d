"""How long rows come out in tokens, and what a limit takes from them: told before the first step, not at the row.

Of a long file some rows are measured, drawn by the seed. A conversation that is cut loses the end of its answer, and
with it the mark by which the model learns to stop; one whose answer begins behind the limit cannot be learned at all.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from reason_engine.data.formats.rows import Conversation, Labelled, Preference, Row
from reason_engine.errors import SetupError
from reason_engine.training.common.encode import Encoder
from reason_engine.types import Message, Turns

MEASURED = 5_000
"""Rows at most."""


@dataclass(frozen=True, slots=True)
class RowLength:
    """In tokens; the answer begins at `answer`."""

    whole: int
    answer: int


def told_lengths(rows: Sequence[Row], encoder: Encoder, seed: int) -> list[str]:
    """Lines for the user. Raises SetupError where an answer begins behind `max_length`."""
    some = rows if len(rows) <= MEASURED else random.Random(f"lengths-{seed}").sample(rows, MEASURED)
    found, limit = measure(some, encoder), encoder.max_length
    if not found:
        return []
    whole = sorted(one.whole for one in found)
    of = "" if len(some) == len(rows) else f" of {len(some):,} rows"
    lines = [
        f"lengths{of}: median {whole[len(whole) // 2]:,}, 95 % up to {whole[int(0.95 * (len(whole) - 1))]:,}, longest "
        f"{whole[-1]:,} tokens; max_length {limit:,}"
    ]
    if lost := [one for one in found if one.answer >= limit]:
        raise SetupError(
            f"max_length: {len(lost):,} of {len(found):,} rows have no answer within {limit:,} tokens; one begins at "
            f"token {max(one.answer for one in lost):,}, and the longest row has {whole[-1]:,}"
        )
    if cut := sum(length > limit for length in whole):
        share = 100 * cut / len(whole)
        lines.append(
            f"truncation: {cut:,} rows ({share:.1f} %) are longer than max_length and lose the end of their answer"
        )
    return lines


def measure(rows: Sequence[Row], encoder: Encoder) -> list[RowLength]:
    """Of rows that hold answers, one entry an answer; running text, which is cut in pieces, and rows of other kinds
    are left out."""
    known = [one for row in rows for one in _conversations(row)]
    texts = [encoder.render(one) for one in known]
    ids = encoder.tokens_of([text for text, _, _, _ in texts])
    pairs = zip(texts, ids, strict=True)
    return [RowLength(len(starts), sum(at < start for at in starts)) for (_, start, _, _), starts in pairs]


def _conversations(row: Row) -> list[Conversation]:
    match row:
        case Conversation():
            return [row]
        case Preference():
            return [_answered(row.prompt, row.chosen), _answered(row.prompt, row.rejected)]
        case Labelled():
            return [_answered(row.prompt, row.completion)]
        case _:
            return []


def _answered(prompt: Turns, text: str) -> Conversation:
    return Conversation((*prompt, Message("assistant", text)))
