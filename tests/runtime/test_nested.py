"""A strategy inside another one: its verifier, what was drawn before, and what a cut run hands in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from pydantic import BaseModel, ConfigDict

from reason_engine.contracts import Call
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import BudgetExhausted, CapabilityMissing, RequestError
from reason_engine.runtime.context import Context
from reason_engine.runtime.drawn import PathCache
from reason_engine.runtime.solve import solve
from reason_engine.strategies import Strategy, VerifierChoice
from reason_engine.strategies.best_of_n import BestOfN
from reason_engine.strategies.direct import Direct
from reason_engine.types import Answer, Draw, Path, Problem, Score
from reason_engine.verifiers import verifiers

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
    cache = PathCache[Path]()
    cache.put("a", [path("1"), path("2")])
    first = cache.reader()
    assert [p.text for p in first.take("a", 1)] == ["1"]
    assert [p.text for p in first.take("a", 5)] == ["2"]
    first.put("a", [path("3")])
    assert first.take("a", 5) == [] == first.take("b", 1)
    assert [p.text for p in first.reader().take("a", 5)] == ["1", "2", "3"]


async def test_paths_in_stock_are_neither_drawn_nor_paid_again() -> None:
    engine, cache = numbered(), PathCache[Path]()

    async def body(problem: Problem, ctx: Context) -> Answer:
        got: list[list[str | None]] = []
        for n, heat in ((2, 0.5), (3, 0.5), (1, 0.9)):
            async with ctx.nested(f"draw {n}", Direct.model_validate({}), cache) as here:
                got.append([p.answer for p in await here.sample(draw=Draw(n=n, temperature=heat))])
        assert got == [["0", "1"], ["0", "1", "2"], ["3"]]
        return Answer()

    outcome = await solve(strategy(body), Problem("?"), engine)
    assert outcome.samples == engine.samples == 4
    assert outcome.usage.completion == engine.generated


async def test_until_sees_what_was_in_stock() -> None:
    cache, seen = PathCache[Path](), list[int]()

    def enough(paths: list[Path]) -> bool:
        seen.append(len(paths))
        return len(paths) >= 2

    async def body(problem: Problem, ctx: Context) -> Answer:
        for n in (2, 4):
            async with ctx.nested(str(n), Direct.model_validate({}), cache) as here:
                await here.sample(draw=Draw(n=n, until=enough if n == 4 else None))
        return Answer()

    engine = numbered()
    await solve(strategy(body), Problem("?"), engine)
    assert (engine.samples, seen) == (2, [2])  # two were enough: nothing new was begun


async def test_the_inner_verifier_is_the_inner_strategys_only() -> None:
    async def body(problem: Problem, ctx: Context) -> Answer:
        async with ctx.nested("inner", BestOfN.model_validate({"n": 2}), PathCache[Path]()) as here:
            assert here.verifier_name == "certainty"
            await here.score(await here.sample(draw=Draw(n=1)))
        assert (ctx.verifier_name, ctx.verifier) == ("", None)
        with pytest.raises(RequestError, match="needs a verifier"):
            await ctx.score(await ctx.sample(draw=Draw(n=1)))
        return Answer()

    await solve(strategy(body), Problem("?"), numbered())


class Length(BaseModel):
    """Scores a path by a function of its own, once every strategy that runs is there."""

    model_config = ConfigDict(frozen=True)
    by: float

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        await call.sample("Sure?")
        return [Score(self.by) for _ in paths]


async def test_two_inner_strategies_run_at_once_each_with_its_own_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    verifiers.get("certainty")  # so that the registry is loaded
    monkeypatch.setitem(verifiers._found, "length", Length)
    both = asyncio.Barrier(2)

    async def body(problem: Problem, ctx: Context) -> Answer:
        cache = PathCache[Path]()

        async def one(by: float) -> tuple[str, list[float]]:
            chosen = VerifierChoice(name="length", params={"by": by})
            async with ctx.nested(f"by {by:g}", BestOfN(n=2, verifier=chosen), cache) as here:
                await both.wait()
                paths = await here.sample(draw=Draw(n=2))
                await both.wait()
                scores = await here.score(paths)
                await both.wait()
                again = await here.score(paths)
                return here.verifier_name, [s.value for s in (*scores, *again) if s]

        async with asyncio.TaskGroup() as group:
            found = [group.create_task(one(by)) for by in (0.25, 0.75)]
        assert [task.result() for task in found] == [("length", [by] * 4) for by in (0.25, 0.75)]
        assert ctx.verifier is None
        return Answer()

    engine = numbered()
    outcome = await solve(strategy(body), Problem("?"), engine)
    # Each draws what the other has not drawn, and what their verifiers sample is shared like everything else.
    assert engine.samples == 2 + 2
    scores = {n.name: sorted(s["value"] for s in n.scores) for n in outcome.trace.nodes if n.scores}
    assert scores == {"path 0": [0.25, 0.25, 0.75, 0.75], "path 1": [0.25, 0.25, 0.75, 0.75]}


async def test_what_the_inner_strategy_lacks_is_told() -> None:
    async def body(problem: Problem, ctx: Context) -> Answer:
        async with ctx.nested("inner", Direct.model_validate({"draft": "ngram"}), PathCache[Path]()):
            raise AssertionError("it cannot run")

    with pytest.raises(CapabilityMissing, match="ngram"):
        await solve(strategy(body), Problem("?"), numbered())


async def test_a_standby_gives_way_to_whatever_is_proposed_later() -> None:
    async def body(problem: Problem, ctx: Context) -> Answer:
        first, second = await ctx.sample(draw=Draw(n=2))
        ctx.set_fallback(ctx.propose(Answer(first, first.answer), 9.0))
        ctx.propose(Answer(second, second.answer), 0.1)
        raise BudgetExhausted("budget-tokens")

    assert (await solve(strategy(body), Problem("?"), numbered())).answer.value == "1"


async def test_a_standby_is_what_a_cut_run_falls_back_on() -> None:
    async def body(problem: Problem, ctx: Context) -> Answer:
        first, _ = await ctx.sample(draw=Draw(n=2))
        ctx.set_fallback(Answer(first, first.answer, 0.25))
        ctx.set_fallback(Answer())  # nothing to fall back on: the first stays
        raise BudgetExhausted("budget-tokens")

    outcome = await solve(strategy(body), Problem("?"), numbered())
    assert (outcome.answer.value, outcome.answer.confidence) == ("0", 0.25)
