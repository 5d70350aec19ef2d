"""`solve` and the context: errors by boundary, continuation under leases, verifiers that fail, shared budgets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from reason_engine.contracts import Call, Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import (
    CapabilityMissing,
    ContextLengthExceeded,
    RequestError,
    StrategyError,
    UnknownName,
    VerifierError,
)
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.context import Context
from reason_engine.runtime.solve import solve
from reason_engine.runtime.verify import NamedVerifier
from reason_engine.strategies import Strategy
from reason_engine.strategies.best_of_n import BestOfN
from reason_engine.strategies.chain_of_thought import ChainOfThought
from reason_engine.strategies.direct import Direct
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.types import Answer, Draw, Limits, Message, Path, Problem, Sampling, Score, Structured

Body = Callable[[Problem, Context], Awaitable[Answer]]


def strategy(body: Body) -> Strategy:
    class Made(Strategy):
        name = "made"

        async def run(self, problem: Problem, ctx: Context) -> Answer:
            return await body(problem, ctx)

    return Made()


def words(count: int) -> Callable[[str, int, int], str]:
    return lambda prompt, seed, index: " ".join(f"w{i}" for i in range(count))


async def test_a_path_longer_than_its_lease_goes_on_where_it_was() -> None:
    """The cap allows no full lease for both, so each path takes several, and the text is whole all the same."""
    engine = Scripted(words(700))
    outcome = await solve(SelfConsistency(n=2), Problem("?"), engine, limits=Limits(tokens=2000))
    assert outcome.usage.completion == engine.generated == 2 * 701
    assert outcome.stopped == "done"
    paths = [node for node in outcome.trace.nodes if node.role == "path"]
    assert [node.text for node in paths] == [words(700)("", 0, 0)] * 2
    assert engine.requests > 2


async def test_without_continuation_a_lease_is_all_a_path_gets() -> None:
    engine = Scripted(words(700), caps=Capabilities(logprobs=0, structured=True))
    outcome = await solve(SelfConsistency(n=2), Problem("?"), engine, limits=Limits(tokens=1000))
    assert outcome.stopped == "budget-tokens"
    assert outcome.finish_reason == "length"
    assert outcome.usage.completion == engine.generated == 2 * 256


async def test_the_requests_own_limit_is_length_and_no_budget() -> None:
    outcome = await solve(Direct(), Problem("?"), Scripted(words(50)), sampling=Sampling(max_tokens=5))
    assert (outcome.finish_reason, outcome.stopped, outcome.usage.completion) == ("length", "done", 5)


async def test_a_finished_answer_under_a_spent_budget_is_stop() -> None:
    texts = ["Answer: 4", "a much longer way to the same place\nAnswer: 4"]
    engine = Scripted(lambda prompt, seed, index: texts[index])
    outcome = await solve(
        SelfConsistency(n=2), Problem("?"), engine, limits=Limits(tokens=8), sampling=Sampling(max_tokens=4)
    )
    assert outcome.content == "Answer: 4"
    assert outcome.finish_reason == "stop"


async def test_error_of_a_strategy_is_named_so() -> None:
    async def broken(problem: Problem, ctx: Context) -> Answer:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.sample())
            raise KeyError("oops")

    engine = Scripted()
    with pytest.raises(StrategyError, match="made: KeyError: 'oops'"):
        await solve(strategy(broken), Problem("?"), engine)
    assert engine.running == 0


async def test_the_best_proposal_is_what_a_cut_run_returns() -> None:
    async def endless(problem: Problem, ctx: Context) -> Answer:
        for i in range(100):
            (path,) = await ctx.sample(draw=Draw(n=1))
            ctx.propose(Answer(path, f"answer {i}", 0.5), score=-abs(i - 2))
        return Answer()

    outcome = await solve(strategy(endless), Problem("?"), Scripted(words(9)), limits=Limits(tokens=60))
    assert outcome.answer.value == "answer 2"
    assert outcome.stopped == "budget-tokens"
    assert outcome.usage.completion == 60


@pytest.mark.parametrize(
    ("chosen", "error", "param"),
    [
        (BestOfN(verifier="certanty"), UnknownName, "reasoning.verifier"),
        (BestOfN(verifier={"name": "certainty", "params": {"x": 1}}), RequestError, "reasoning.verifier.params.x"),  # pyright: ignore
        (Direct(draft="sam"), CapabilityMissing, "reasoning.draft"),
    ],
)
async def test_refused_before_a_token(chosen: Strategy, error: type[RequestError], param: str) -> None:
    engine = Scripted()
    with pytest.raises(error) as caught:
        await solve(chosen, Problem("?"), engine)
    assert caught.value.param == param
    assert engine.requests == 0


async def test_prompt_over_the_context() -> None:
    engine = Scripted(context=50)
    with pytest.raises(ContextLengthExceeded) as caught:
        await solve(Direct(), Problem("word " * 60), engine)
    assert caught.value.param == "messages"
    assert engine.requests == 0


class Judge:
    """A verifier of the test's own making."""

    def __init__(self, of: Callable[[Path], float]) -> None:
        self.of = of

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        return [Score(self.of(path)) for path in paths]


async def judged(of: Callable[[Path], float]) -> str | None:
    async def body(problem: Problem, ctx: Context) -> Answer:
        ctx = replace(ctx, verifier=NamedVerifier("test", Judge(of)))
        paths = await ctx.sample(draw=Draw(n=3))
        scores = await ctx.score(paths)
        return Answer(paths[0], ",".join("-" if s is None else f"{s.value:g}" for s in scores))

    engine = Scripted(lambda prompt, seed, index: f"Answer: {index}")
    return (await solve(strategy(body), Problem("?"), engine)).answer.value


async def test_a_crash_or_nan_of_a_verifier_ends_that_path_only() -> None:
    def touchy(path: Path) -> float:
        if path.answer == "1":
            raise ZeroDivisionError
        return 0.5

    assert await judged(touchy) == "0.5,-,0.5"
    assert await judged(lambda path: float("nan") if path.answer == "0" else 1.0) == "-,1,1"


async def test_a_verifier_that_always_fails_is_an_error() -> None:
    with pytest.raises(VerifierError):
        await judged(lambda path: 1 / 0)
    with pytest.raises(VerifierError):
        await judged(lambda path: float("inf"))


async def test_what_a_verifier_generates_is_accounted_under_its_name() -> None:
    class Asks:
        async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
            await call.sample("Is it right?", Draw(2))
            return [Score(1.0) for _ in paths]

    async def body(problem: Problem, ctx: Context) -> Answer:
        ctx = replace(ctx, verifier=NamedVerifier("asks", Asks()))
        (path,) = await ctx.sample()
        await ctx.score([path])
        return Answer(path)

    engine = Scripted(lambda prompt, seed, index: "yes" if "Is it right?" in prompt else "no words at all")
    outcome = await solve(strategy(body), Problem("?"), engine)
    assert {k: v.completion for k, v in outcome.usage_by_stage.items()} == {"sample": 5, "asks": 4}
    assert outcome.samples == 3
    assert outcome.content == "no words at all"


async def test_runs_that_share_a_budget_stay_under_one_cap() -> None:
    engine, budget = Scripted(words(40)), Budget(Limits(tokens=100))
    async with asyncio.TaskGroup() as group:
        runs = [
            group.create_task(solve(Direct(), Problem("?"), engine, limits=budget.share(), seed=i)) for i in range(4)
        ]
    total = sum(run.result().usage.completion for run in runs)
    assert total == engine.generated == 100
    assert "budget-tokens" in {run.result().stopped for run in runs}


async def test_earlier_turns_prefix_the_prompt() -> None:
    engine = Scripted()
    history = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello"))
    await solve(ChainOfThought(), Problem("Now?", history=history), engine)
    prompt = engine.log[0].prompt
    assert isinstance(prompt, str)
    assert [prompt.index(text) for text in ("Be brief.", "Hi", "Hello", "Now?")] == sorted(
        prompt.index(text) for text in ("Be brief.", "Hi", "Hello", "Now?")
    )


async def test_stop_and_logprobs_belong_to_the_content() -> None:
    engine = Scripted(lambda p, s, i: "so END it is\nAnswer: 12 END 13")
    sampling = Sampling(max_tokens=0, stop=(" END",), logprobs=1)
    outcome = await solve(ChainOfThought(), Problem("?"), engine, sampling=sampling)
    assert outcome.content == "Answer: 12"
    assert outcome.reasoning == "so END it is"
    assert outcome.finish_reason == "stop"
    # The token that holds the border belongs to the content too.
    assert [token.token for token in outcome.logprobs] == ["\nAnswer:", " 12"]


async def test_direct_hands_stop_to_the_engine() -> None:
    engine = Scripted(lambda p, s, i: "one two END three four")
    outcome = await solve(Direct(), Problem("?"), engine, sampling=Sampling(max_tokens=0, stop=(" END",)))
    assert (outcome.content, outcome.usage.completion) == ("one two", 3)


async def test_json_answers_are_voted_on_as_values() -> None:
    texts = ['{"a": 1, "b": 2}', '{"b": 2, "a": 1}', '{"a": 3}']
    engine = Scripted(lambda p, s, i: texts[i])
    problem = Problem("?", structured=Structured(json_object=True))
    outcome = await solve(SelfConsistency(n=3), problem, engine)
    assert outcome.answer.votes[0].count == 2
    assert outcome.content == texts[0]


async def test_a_thinking_model_gets_no_prompt_and_its_thought_is_split_off() -> None:
    engine = Scripted(lambda p, s, i: "hm\n</think>\n\nIt is 8.", thinks=True)
    outcome = await solve(ChainOfThought(), Problem("4 + 4?"), engine)
    assert (outcome.reasoning, outcome.content) == ("hm", "It is 8.")
    assert "step by step" not in str(engine.log[0].prompt)
