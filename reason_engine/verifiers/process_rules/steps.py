"""The steps of a path, each with the likelihood of its tokens."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

from reason_engine.steps import step_pieces
from reason_engine.types import Path

STEPS = 512
"""Steps of one path that are judged."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step's text, and the geometric mean of its tokens' probabilities; None where none were recorded."""

    text: str
    likelihood: float | None


def steps_of(path: Path, end: str = "\n\n") -> list[Step]:
    """The steps of a path, empty ones left out. A token that spans a border counts where it begins."""
    pieces = step_pieces(path.text, end)
    borders = list(accumulate(len(piece) + len(end) for piece in pieces))
    totals, counts = [0.0] * len(pieces), [0] * len(pieces)
    place = len(path.prefill)
    for token in path.logprobs:
        if place < len(path.text) and math.isfinite(token.logprob):
            step = bisect_right(borders, place)
            totals[step] += min(0.0, token.logprob)
            counts[step] += 1
        place += len(token.token)
    return [
        Step(piece, math.exp(total / count) if count else None)
        for piece, total, count in zip(pieces, totals, counts, strict=True)
        if piece.strip()
    ][:STEPS]
