"""The one door for programs that are not asynchronous."""

from __future__ import annotations

import asyncio
from pathlib import Path

from reason_engine.contracts import Engine
from reason_engine.profile import Profile, read_profile
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
    """`solve` on an engine that this call starts and closes. `profile` None: the one beside the engine's weights.

    Raises what `solve` raises, and RuntimeError inside a running event loop, where `solve` itself is to be awaited.
    """
    if _in_loop():
        raise RuntimeError("an event loop is running here: await reason_engine.solve(...) instead")

    async def run() -> Outcome:
        await engine.start()
        try:
            asked = profile or read_profile(Path(engine.info.path))
            return await solve(
                strategy, problem, engine, profile=asked, limits=limits, sampling=sampling, seed=seed
            )
        finally:
            await engine.close()

    return asyncio.run(run())


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
