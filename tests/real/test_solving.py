"""Every registered strategy on a real model, by `solve`: an answer, its account, its clock, and its end."""

from __future__ import annotations

import asyncio
import re

import pytest

from reason_engine.engines.embedded.front import Embedded
from reason_engine.runtime.solve import GRACE_SECONDS, Outcome, solve
from reason_engine.runtime.trace import Event
from reason_engine.types import Limits, Message, Problem, Sampling
from tests.real.asking import NAMES, PATH, QUESTION, TOKENS, generated, options, small

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="session")]
every_strategy = pytest.mark.parametrize("name", NAMES)
SHORT = Sampling(max_tokens=PATH)

NUMBER = re.compile(r"-?[\d,]*\.?\d+(/\d+)?%?")


def check_account(outcome: Outcome) -> None:
    """What holds of every outcome, however it ended."""
    stages = outcome.usage_by_stage.values()
    assert sum(usage.completion for usage in stages) == outcome.usage.completion
    assert sum(usage.prompt for usage in stages) == outcome.usage.prompt
    assert 0 <= outcome.content_tokens <= outcome.usage.completion
    nodes = outcome.trace.to_json()["nodes"]
    assert [node["parent"] for node in nodes].count(None) == 1
    assert all(node["closed"] is not None for node in nodes)
    assert sum(node["role"] == "path" for node in nodes) == outcome.samples
    assert outcome.answer.confidence is None or 0 <= outcome.answer.confidence <= 1


@every_strategy
async def test_answers_with_a_number_or_says_that_it_has_none(engine: Embedded, name: str) -> None:
    said, before = {"reasoning": "", "content": ""}, await generated(engine)

    def hear(piece) -> None:
        said[piece.field] += piece.text

    limits = Limits(tokens=TOKENS)
    outcome = await solve(small(name), Problem(QUESTION), engine, limits=limits, sampling=SHORT, seed=5, say=hear)
    assert outcome.content.strip()
    assert outcome.finish_reason in ("stop", "length")
    assert outcome.stopped in ("done", "decided", "budget-tokens")
    assert 0 < outcome.usage.completion == await generated(engine) - before <= TOKENS
    assert outcome.prompt_tokens == len(engine.tokenize(engine.render_chat([Message("user", QUESTION)])))
    assert said == {"reasoning": outcome.reasoning or "", "content": outcome.content}
    values = [*(vote.answer for vote in outcome.answer.votes), outcome.answer.value]
    assert [value for value in values if value is not None and not NUMBER.fullmatch(value)] == [], "no number"
    assert outcome.answer.value is not None or outcome.unread or outcome.cut or outcome.stopped == "budget-tokens"
    check_account(outcome)


@every_strategy
async def test_stops_by_its_clock(engine: Embedded, name: str) -> None:
    """Minutes of work are asked for; what is there after a second comes back."""
    before = await generated(engine)
    large = {"n": 16, "visits": 500, "simulations": 500, "rounds": 16}
    strategy = small(name)
    strategy = strategy.model_copy(update={key: large[key] for key in large if key in options(name)})
    problem = Problem("Write a long story about a ship, and then say how many sails it has.")
    outcome = await solve(strategy, problem, engine, limits=Limits(seconds=1), seed=7)
    assert outcome.stopped in ("budget-seconds", "done", "decided")
    assert outcome.stopped != "budget-seconds" or 1 <= outcome.seconds < 20
    made = await generated(engine) - before
    # Of what a slow machine hands in after the grace nothing is known any more.
    assert outcome.usage.completion == made or (outcome.usage.completion < made and outcome.seconds > 1 + GRACE_SECONDS)
    check_account(outcome)


@every_strategy
async def test_a_run_that_is_cancelled_leaves_nothing_running(engine: Embedded, name: str) -> None:
    begun = asyncio.Event()

    def hear(event: Event) -> None:
        if event.kind == "delta":
            begun.set()

    task = asyncio.create_task(solve(small(name), Problem(QUESTION), engine, sampling=SHORT, seed=8, publish=hear))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await generated(engine)
    exactly = Sampling(max_tokens=4, ignore_eos=True)
    await solve(small("direct"), Problem(QUESTION), engine, sampling=exactly)  # the worker has read the abort then
    before = await generated(engine)
    await solve(small("direct"), Problem(QUESTION), engine, sampling=exactly)
    assert await generated(engine) - before == 4, "the engine goes on with what was cancelled"
