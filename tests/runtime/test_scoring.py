"""Verifiers that misbehave: each failure ends a path, not the request, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from reason_engine.answers import Equality
from reason_engine.contracts import Call
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import BudgetExhausted, ContextLengthExceeded, EngineError, RequestError, VerifierError
from reason_engine.profile import Profile
from reason_engine.runtime import verify as scoring
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.context import Context
from reason_engine.runtime.prompts import PromptCache
from reason_engine.runtime.run import Run
from reason_engine.runtime.solve import ignore
from reason_engine.runtime.trace import Opened
from reason_engine.runtime.verify import NamedVerifier
from reason_engine.types import Limits, Path, Problem, Sampling, Score

PATHS = [Path(0, "", "good", answer="1"), Path(1, "", "bad", answer="2"), Path(2, "", "good", answer="3")]
SHORT = 0.05
Judge = Callable[[Sequence[Path]], Awaitable[list[object]]]


class Odd:
    """Judges by a function; every step like the whole."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[object]:
        return await self.judge(paths)

    async def score_steps(self, problem: Problem, path: Path, call: Call) -> list[object]:
        return await self.judge([path])


def context(judge: Judge, limits: Limits | None = None) -> Context:
    engine = Scripted()
    run = Run(
        "run", engine, Problem("?"), Profile(), Budget(limits or Limits()), Sampling(), "test", 0, ignore,
        Equality(), PromptCache(engine),
    )  # fmt: skip
    return Context(run, run.open(Opened(0, None, "test")), verifier=NamedVerifier("odd", Odd(judge)))  # pyright: ignore


async def fine(paths: Sequence[Path]) -> list[object]:
    return [Score(1.0) for _ in paths]


async def crashes(paths: Sequence[Path]) -> list[object]:
    if any(path.text == "bad" for path in paths):
        raise ZeroDivisionError("oh")
    return await fine(paths)


async def hangs(paths: Sequence[Path]) -> list[object]:
    if any(path.text == "bad" for path in paths):
        await asyncio.Event().wait()
    return await fine(paths)


async def no_number(paths: Sequence[Path]) -> list[object]:
    return [Score(math.nan if path.text == "bad" else 1.0) for path in paths]


async def infinite(paths: Sequence[Path]) -> list[object]:
    return [Score(math.inf if path.text == "bad" else 1.0) for path in paths]


async def no_score(paths: Sequence[Path]) -> list[object]:
    return [None if path.text == "bad" else Score(1.0) for path in paths]


async def a_word(paths: Sequence[Path]) -> list[object]:
    return [Score("good") if path.text == "bad" else Score(1.0) for path in paths]  # pyright: ignore


async def miscounts(paths: Sequence[Path]) -> list[object]:
    return (await fine(paths))[: len(paths) - any(path.text == "bad" for path in paths)]


async def too_long(paths: Sequence[Path]) -> list[object]:
    if any(path.text == "bad" for path in paths):
        raise ContextLengthExceeded("too long")
    return await fine(paths)


async def in_a_group(paths: Sequence[Path]) -> list[object]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(crashes(paths))
    return task.result()


ODD = [crashes, hangs, no_number, infinite, no_score, a_word, miscounts, too_long, in_a_group]
odd = pytest.mark.parametrize("judge", ODD, ids=lambda judge: judge.__name__)


@odd
async def test_a_failure_stays_with_its_path(judge: Judge) -> None:
    ctx = context(judge)
    scores = await scoring.score(ctx.run, ctx.verifier, ctx, PATHS, SHORT)
    assert [score and score.value for score in scores] == [1.0, None, 1.0]
    judged = [event.node for event in ctx.run.log if event.kind == "scored"]
    assert judged == [0, 2]


@odd
async def test_a_failure_on_every_path_is_an_error_that_names_the_verifier(judge: Judge) -> None:
    ctx = context(judge)
    for paths in ([PATHS[1]], [PATHS[1], PATHS[1]]):
        with pytest.raises(VerifierError, match="odd"):
            await scoring.score(ctx.run, ctx.verifier, ctx, paths, SHORT)


@pytest.mark.parametrize("judge", [crashes, hangs, no_number, no_score, in_a_group, too_long])
async def test_steps_that_cannot_be_judged(judge: Judge) -> None:
    ctx = context(judge)
    assert await scoring.score_steps(ctx.run, ctx.verifier, ctx, PATHS[0], SHORT)
    with pytest.raises(VerifierError, match="odd"):
        await scoring.score_steps(ctx.run, ctx.verifier, ctx, PATHS[1], SHORT)


async def test_the_deadline_ends_it_even_before_its_own_limit() -> None:
    ctx = context(hangs, Limits(seconds=SHORT))
    with pytest.raises(BudgetExhausted):
        await ctx.score([PATHS[1]])
    assert ctx.run.budget.cut == "budget-seconds"
    late = context(hangs, Limits(seconds=SHORT))
    with pytest.raises(BudgetExhausted):
        await late.score_steps(PATHS[1])


@pytest.mark.parametrize(
    "error", [BudgetExhausted("budget-tokens"), RequestError("no reference"), EngineError("the card fell out")]
)
async def test_what_is_not_the_verifiers_fault_passes(error: Exception) -> None:
    async def fails(paths: Sequence[Path]) -> list[object]:
        async with asyncio.TaskGroup() as group:
            group.create_task(raises(error))
        return []

    async def raises(error: Exception) -> None:
        raise error

    ctx = context(fails)
    with pytest.raises(type(error), match=str(error)):
        await ctx.score(PATHS)
    with pytest.raises(type(error), match=str(error)):
        await ctx.score_steps(PATHS[0])


async def test_no_paths_no_scores_and_no_verifier_no_score() -> None:
    ctx = context(fine)
    assert await ctx.score([]) == []
    ctx = replace(ctx, verifier=None)
    with pytest.raises(RequestError, match="needs a verifier"):
        await ctx.score(PATHS)
    with pytest.raises(RequestError, match="judges steps"):
        await ctx.score_steps(PATHS[0])
