"""The one door for programs that are not asynchronous."""

from __future__ import annotations

import asyncio

from reason_engine.contracts import Engine
from reason_engine.profile import Profile
from reason_engine.runtime.outcome import Outcome
from reason_engine.runtime.solve import Solvable, solve
from reason_engine.types import Limits, Problem, Sampling


def solve_sync(
    strategy: Solvable,
    problem: Problem,
    engine: Engine,
    *,
    profile: Profile | None = None,
    limits: Limits | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> Outcome:
    """`solve` on an engine that this call starts and closes. Raises what `solve` raises, and RuntimeError inside a
    running event loop, where `solve` itself is to be awaited.
    """

    async def run() -> Outcome:
        await engine.start()
        try:
            return await solve(
                strategy, problem, engine, profile=profile, limits=limits, sampling=sampling, seed=seed
            )
        finally:
            await engine.close()

    return asyncio.run(run())
