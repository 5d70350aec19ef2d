"""Which of two answers a judge prefers, asked in both orders (verifier `judge`, mode pairwise)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, ClassVar

from reason_engine.data._teacher import Teacher
from reason_engine.evals.run import seed_of
from reason_engine.runtime.context import Context
from reason_engine.runtime.solve import solve
from reason_engine.strategies import Strategy, VerifierChoice
from reason_engine.types import Answer, Path, Problem


class Comparison(Strategy):
    """A judge asked about two texts that other runs made."""

    name: ClassVar[str] = "comparison"
    first: Path
    second: Path

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """The confidence is the second text's share."""
        _, score = await ctx.score([self.first, self.second])
        return Answer(self.second, None, score.value if score else None)


async def shares(
    judge: Teacher,
    params: dict[str, Any],
    problems: Sequence[Problem],
    before: Sequence[str],
    after: Sequence[str],
    seed: int,
    concurrency: int,
) -> list[float]:
    """How much of each problem the text after won. Texts that are the same share it without being asked about, as do
    those of which the judge says nothing. Raises what `solve` raises."""
    named = VerifierChoice(name="judge", params={"rank": "win-rate", **params, "mode": "pairwise"})
    gate = asyncio.Semaphore(concurrency)

    async def one(number: int) -> float:
        texts = before[number], after[number]
        if texts[0] == texts[1]:
            return 0.5
        first, second = (Path(0, "", text) for text in texts)
        strategy = Comparison.model_validate({"verifier": named, "first": first, "second": second})
        async with gate:
            outcome = await solve(
                strategy,
                problems[number],
                judge.engine,
                profile=judge.profile,
                seed=seed_of(seed, number),
                equality=judge.equality,
            )
        share = outcome.answer.confidence
        return 0.5 if share is None or math.isnan(share) else share

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one(number)) for number in range(len(problems))]
    return [task.result() for task in running]
