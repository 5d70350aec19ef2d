"""Tokens a second of two checkpoints in one run: alternating pairs, so that what the machine does besides meets both.

Prompts are the same random tokens for both; each row writes a fixed number of tokens, greedily, with no end.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reason_engine.engines.embedded import Embedded
from reason_engine.engines.embedded.shape import read_shape
from reason_engine.evals.statistics import bootstrap
from reason_engine.training.callbacks import Tell
from reason_engine.types import GenerateRequest, Sampling

PROMPT = 32
TOKENS = 48
WIDTHS = (1, 16)


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians of tokens a second, and of the pairs' ratios after / before with its 95 % interval."""

    rows: int
    before: float
    after: float
    ratio: float
    low: float
    high: float


async def compare(
    before: Path, after: Path, pairs: int, threads: int, tell: Tell, tokens: int = TOKENS
) -> list[Speed]:
    """One entry a number of rows, each of which writes so many tokens. Both engines are held in memory at once."""
    engines = [Embedded(folder, inline=True, threads=threads) for folder in (before, after)]
    vocabulary = read_shape(before).vocab
    found: list[Speed] = []
    try:
        for engine in engines:
            await engine.start()
        for width in WIDTHS:
            for engine in engines:
                await _rate(engine, vocabulary, width, tokens, -1)
            rates: list[tuple[float, float]] = []
            for pair in range(pairs):
                order = engines if pair % 2 == 0 else engines[::-1]
                seen = {id(engine): await _rate(engine, vocabulary, width, tokens, pair) for engine in order}
                rates.append((seen[id(engines[0])], seen[id(engines[1])]))
                tell({"stage": f"speed, {width} at once", "done": pair + 1, "total": pairs})
            found.append(_speed(width, rates))
    finally:
        for engine in engines:
            await engine.close()
    return found


async def _rate(engine: Embedded, vocabulary: int, rows: int, tokens: int, seed: int) -> float:
    rng = random.Random(f"speed-{seed}")
    ids = tuple(rng.randrange(3, vocabulary) for _ in range(PROMPT))
    sampling = Sampling(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    began, count = time.monotonic(), 0
    async for chunk in engine.generate(GenerateRequest(f"speed-{rows}-{seed}", ids, rows, sampling)):
        count += len(chunk.token_ids)
    return count / (time.monotonic() - began)


def _speed(rows: int, rates: Sequence[tuple[float, float]]) -> Speed:
    ratios = [after / before for before, after in rates]
    low, high = bootstrap(ratios, statistics.median)
    first, second = (statistics.median(rate[side] for rate in rates) for side in (0, 1))
    return Speed(rows, first, second, statistics.median(ratios), low, high)
