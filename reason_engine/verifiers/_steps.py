"""A path taken apart: its steps, and how likely the model found each of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reason_engine.types import Path

MOST = 512
"""Steps of one path that are looked at."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step's text, and the geometric mean of its tokens' probabilities; None where none were recorded."""

    text: str
    likelihood: float | None


def steps_of(path: Path, end: str = "\n") -> list[Step]:
    """The steps of a path, empty ones left out. A token that spans a border counts where it begins."""
    bounds: list[tuple[int, int, str]] = []
    at = 0
    for piece in path.text.split(end):
        bounds.append((at, at + len(piece) + len(end), piece))
        at += len(piece) + len(end)
    sums = [(0.0, 0)] * len(bounds)
    place, here = len(path.prefill), 0
    for token in path.logprobs:
        while here < len(bounds) - 1 and place >= bounds[here][1]:
            here += 1
        if place < len(path.text) and math.isfinite(token.logprob):
            total, count = sums[here]
            sums[here] = (total + min(0.0, token.logprob), count + 1)
        place += len(token.token)
    found = [
        Step(piece, math.exp(total / count) if count else None)
        for (_, _, piece), (total, count) in zip(bounds, sums, strict=True)
        if piece.strip()
    ]
    return found[:MOST]
