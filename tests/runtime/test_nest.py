"""A strategy inside another one: its verifier, what was drawn before, and what a cut run hands in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.errors import BudgetExhausted, CapabilityMissing, RequestError
from reason_engine.runtime.context import Context
from reason_engine.runtime.nested import Stock, inner, standby
from reason_engine.runtime.solve import solve
from reason_engine.strategies import Strategy
from reason_engine.strategies.best_of_n import BestOfN
from reason_engine.strategies.direct import Direct
from reason_engine.types import Answer, Path, Problem

Body = Callable[[Problem, Context], Awaitable[Answer]]


def strategy(body: Body) -> Strategy:
    class Made(Strategy):
        name = "made"

        async def run(self, problem: Problem, ctx: Context) -> Answer:
            return await body(problem, ctx)

    return Made()


def numbered() -> Scripted:
    drawn = iter(range(100))
    return Scripted(lambda prompt, seed, index: f"Answer: {next(drawn)}")


def path(name: str) -> Path:
    return Path(0, "", name)


def test_a_stock_is_read_from_the_start_by_each() -> None:
    stock = Stock()
    stock.put("a", [path("1"), path("2")])
    first = stock.reopened()
    assert [p.text for p in first.take("a", 1)] == ["1"]
    assert [p.text for p in first.take("a", 5)] == ["2"]
    first.put("a", [path("3")])
    assert first.take("a", 5) == [] == first.take("b", 1)
    assert [p.text for p in first.reopened().take("a", 5)] == ["1", "2", "3"]


async def test_paths_in_stock_are_neither_drawn_nor_paid_again() -> None:
    engine, stock = numbered(), Stock()

    async def body(problem: Problem, ctx: Context) -> Answer:
        got: list[list[str | None]] = []
        for n, heat in ((2, 0.5), (3, 0.5), (1, 0.9)):
            async with inner(ctx, f"draw {n}", Direct.model_validate({}), stock) as here:
                got.append([p.answer for p in await here.sample(n=n, temperature=heat)])
        assert got == [["0", "1"], ["0", "1", "2"], ["3"]]
        return Answer()

    outcome = await solve(strategy(body), Problem("?"), engine)
    assert outcome.samples == engine.samples == 4
    assert outcome.usage.completion == engine.generated


async def test_until_sees_what_was_in_stock() -> None:
    stock, seen = Stock(), list[int]()

    def enough(paths: list[Path]) -> bool:
        seen.append(len(paths))
        return len(paths) >= 2

    async def body(problem: Problem, ctx: Context) -> Answer:
        for n in (2, 4):
            async with inner(ctx, str(n), Direct.model_validate({}), stock) as here:
                await here.sample(n=n, until=enough if n == 4 else None)
        return Answer()

    engine = numbered()
    await solve(strategy(body), Problem("?"), engine)
    assert (engine.samples, seen) == (2, [2])  # two were enough: nothing new was begun


async def test_the_inner_verifier_is_the_inner_strategys_only() -> None:
    async def body(problem: Problem, ctx: Context) -> Answer:
        before = ctx.run.verifier_name, ctx.run.verifier
        async with inner(ctx, "inner", BestOfN.model_validate({"n": 2}), Stock()) as here:
            assert here.run.verifier_name == "certainty"
            await here.score(await here.sample(n=1))
        assert (ctx.run.verifier_name, ctx.run.verifier) == before == ("", None)
        with pytest.raises(RequestError, match="needs a verifier"):
            await ctx.score(await ctx.sample(n=1))
        return Answer()

    await solve(strategy(body), Problem("?"), numbered())


async def test_what_the_inner_strategy_lacks_is_told() -> None:
    async def body(problem: Problem, ctx: Context) -> Answer:
        async with inner(ctx, "inner", Direct.model_validate({"draft": "ngram"}), Stock()):
            raise AssertionError("it cannot run")

    with pytest.raises(CapabilityMissing, match="ngram"):
        await solve(strategy(body), Problem("?"), numbered())


async def test_a_standby_gives_way_to_whatever_is_proposed_later() -> None:
    async def body(problem: Problem, ctx: Context) -> Answer:
        first, second = await ctx.sample(n=2)
        standby(ctx, ctx.propose(Answer(first, first.answer), 9.0))
        ctx.propose(Answer(second, second.answer), 0.1)
        raise BudgetExhausted("budget-tokens")

    assert (await solve(strategy(body), Problem("?"), numbered())).answer.value == "1"


async def test_a_standby_is_what_a_cut_run_falls_back_on() -> None:
    async def body(problem: Problem, ctx: Context) -> Answer:
        first, _ = await ctx.sample(n=2)
        standby(ctx, Answer(first, first.answer, 0.25))
        standby(ctx, Answer())  # nothing to fall back on: the first stays
        raise BudgetExhausted("budget-tokens")

    outcome = await solve(strategy(body), Problem("?"), numbered())
    assert (outcome.answer.value, outcome.answer.confidence) == ("0", 0.25)
