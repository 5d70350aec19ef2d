"""Sampling of paths: single paths that are ended while they run, and paths that go on after given text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import BudgetExhausted
from reason_engine.runtime.context import Context
from reason_engine.runtime.prompts import PromptCache
from reason_engine.runtime.solve import GRACE_SECONDS, Outcome, solve
from reason_engine.strategies import Strategy, strategies
from reason_engine.types import (
    Answer,
    Choice,
    ChoiceRequest,
    Draw,
    GenerateRequest,
    Limits,
    Path,
    Problem,
    ScoreRequest,
    Scores,
    TokenLogprob,
)

WORDS = " ".join(f"w{i}" for i in range(50))


async def drawn(engine: Scripted, work: Callable[[Context], Any], limits: Limits | None = None) -> tuple[Any, Outcome]:
    """What `work` gives inside a run, and the run's outcome."""
    found: list[Any] = []

    class Probe(Strategy):
        async def run(self, problem: Problem, ctx: Context) -> Answer:
            found.append(await work(ctx))
            return Answer()

    outcome = await solve(Probe(), Problem("?"), engine, limits=limits)
    return found[0] if found else None, outcome


def third(index: int, tokens: Sequence[TokenLogprob]) -> bool:
    return index == 2


@pytest.mark.parametrize("limits", [None, Limits(tokens=1000), Limits(tokens=100)])
async def test_a_dropped_path_ends_alone_and_is_accounted(limits: Limits | None) -> None:
    made = Scripted(lambda p, s, i: WORDS)
    paths, outcome = await drawn(made, lambda ctx: ctx.sample(draw=Draw(n=4, drop=third)), limits)
    assert made.aborted == 1
    assert (paths[2].finish_reason, paths[2].finished) == ("length", False)
    assert 0 < paths[2].tokens < 16
    if limits is None or limits.tokens == 1000:
        assert [path.tokens for path in paths if path is not paths[2]] == [51] * 3
    assert outcome.usage.completion == made.generated == sum(path.tokens for path in paths)
    assert limits is None or made.generated <= (limits.tokens or 0)


async def test_drop_hears_each_token_once_and_no_more_after_it_said_so() -> None:
    heard: dict[int, list[str]] = {0: [], 1: []}

    def drop(index: int, tokens: Sequence[TokenLogprob]) -> bool:
        heard[index] += [token.token for token in tokens]
        return index == 1 and len(heard[1]) == 3

    made = Scripted(lambda p, s, i: WORDS)
    paths, _ = await drawn(made, lambda ctx: ctx.sample(draw=Draw(n=2, drop=drop)), Limits(tokens=90))
    assert heard[1] == ["w0", " w1", " w2"]
    assert "".join(heard[0]).removesuffix("</s>") == paths[0].text


async def test_without_the_capability_a_dropped_path_runs_on_but_takes_no_further_lease() -> None:
    caps = Capabilities(logprobs=20, token_ids=True, continuation=True, exact_budget=True)
    made = Scripted(lambda p, s, i: WORDS, caps=caps)
    paths, _ = await drawn(made, lambda ctx: ctx.sample(draw=Draw(n=4, drop=third)))
    assert [path.tokens for path in paths] == [51] * 4
    assert made.aborted == 0
    made = Scripted(lambda p, s, i: WORDS if i == 2 else "short", caps=caps)
    _, outcome = await drawn(made, lambda ctx: ctx.sample(draw=Draw(n=4, drop=third)), Limits(tokens=100))
    assert outcome.usage.completion == made.generated == 25 + 3 * 2


async def test_given_text_is_prompt_and_stands_between_the_tokens_of_a_path_and_its_continuation() -> None:
    made = Scripted(lambda p, s, i: "one two" if "now" not in p else " four")

    async def work(ctx: Context) -> list[Path]:
        (first,) = await ctx.sample()
        return [first, *await ctx.extend(first, insert=" now three")]

    (first, more), outcome = await drawn(made, work)
    assert (more.text, more.prefill, more.tokens) == ("one two now three four", "one two now three", 2)
    # The end-of-sequence token is left out; everything else is as it was drawn.
    assert made.log[1].prompt == (*first.prompt_ids, *first.token_ids[:-1], *made.tokenize(" now three"))
    assert outcome.usage.completion == made.generated == 5
    assert outcome.trace.nodes[2].prefill == "one two now three"


class Bytes:
    """A tokenizer of one token a letter, that opens every text with token 0 and writes token 1 as `</t>`."""

    def tokenize(self, text: str) -> list[int]:
        return [0, *map(ord, text)]

    def detokenize(self, ids: Sequence[int]) -> str:
        return "".join("</t>" if i == 1 else chr(i) for i in ids)


def test_what_a_continuation_begins_with() -> None:
    engine: Any = Bytes()
    continued = PromptCache(engine).continued
    path = Path(0, "p", "pre" + "abc</t>", (97, 98, 99, 1), (0, 112), prefill="pre")
    assert continued(path) == (0, 112, 97, 98, 99, 1)
    # A mark that was cut off goes with its token; what is given is told without a second beginning of sequence.
    cut = replace(path, text="preabc")
    assert continued(cut, "!") == (0, 112, 97, 98, 99, 33)
    # A text that ends inside a token is read anew.
    inside = replace(path, text="preabc</")
    assert continued(inside, "!") == tuple(engine.tokenize("ppreabc</!"))


class SlowToAbort(Scripted):
    """Its last path never ends by itself, and it hears of no abort."""

    def __init__(self) -> None:
        super().__init__(lambda p, s, i: "So it is \\boxed{4}", gate=self._stuck)

    async def _stuck(self, request: GenerateRequest, index: int, position: int) -> None:
        if index == 3 and position == 2:
            await asyncio.Event().wait()

    async def abort(self, request_id: str, index: int | None = None) -> None:
        pass


async def test_what_a_run_had_when_its_grace_ended_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reason_engine.runtime.solve.GRACE_SECONDS", 0.1)
    made = SlowToAbort()
    vote = strategies.get("self-consistency")(n=4)
    outcome = await solve(vote, Problem("How many are 2 + 2?"), made, limits=Limits(seconds=0.2))
    assert (outcome.stopped, outcome.cut, outcome.answer.value) == ("budget-seconds", 1, "4")
    assert outcome.content and outcome.finish_reason == "stop"
    assert made.running == 0


class Hangs(Scripted):
    """Never says what a prompt is worth, nor which option is right."""

    async def choose(self, request: ChoiceRequest) -> Choice:
        await asyncio.Event().wait()
        raise AssertionError

    async def score(self, request: ScoreRequest) -> Scores:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize(
    "ask",
    [lambda ctx: ctx.choice("right?", ("yes", "no")), lambda ctx: ctx.rate(ScoreRequest("", ("text",)))],
    ids=["choice", "rate"],
)
async def test_a_judgement_that_does_not_come_ends_at_the_deadline_not_at_the_end_of_the_grace(
    ask: Callable[[Context], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reason_engine.runtime.solve.GRACE_SECONDS", 60.0)
    refused: list[str] = []

    async def work(ctx: Context) -> None:
        with pytest.raises(BudgetExhausted) as caught:
            await ask(ctx)
        refused.append(caught.value.reason)

    _, outcome = await drawn(Hangs(reward=lambda text: 1.0), work, Limits(seconds=0.1))
    assert refused == ["budget-seconds"]
    assert outcome.stopped == "budget-seconds"


async def test_an_engine_that_does_not_hear_of_the_deadline_is_left_and_the_vote_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reason_engine.runtime.solve.GRACE_SECONDS", 60.0)
    monkeypatch.setattr("reason_engine.runtime.sampling.PATIENCE", 0.05)
    vote = strategies.get("self-consistency")(n=4)
    outcome = await solve(vote, Problem("How many are 2 + 2?"), SlowToAbort(), limits=Limits(seconds=0.2))
    assert (outcome.stopped, outcome.cut) == ("budget-seconds", 1)
    assert [(vote.answer, vote.count) for vote in outcome.answer.votes] == [("4", 3)]


async def test_a_process_that_was_held_up_over_its_deadline_still_counts_the_vote() -> None:
    """Three paths have ended; then nothing moves until long after the grace."""
    late = [0.0]

    class HeldUp(SlowToAbort):
        async def _stuck(self, request: GenerateRequest, index: int, position: int) -> None:
            if index == 3 and position == 9:
                late[0] = time.monotonic() + 0.2 + GRACE_SECONDS + 0.2
                while time.monotonic() < late[0]:
                    pass
                await asyncio.Event().wait()

    made = HeldUp()
    made.reply = lambda p, s, i: "So it is \\boxed{4}" + " and so on" * (4 * (i == 3))
    vote = strategies.get("self-consistency")(n=4)
    outcome = await solve(vote, Problem("How many are 2 + 2?"), made, limits=Limits(seconds=0.2))
    assert late[0] and outcome.stopped == "budget-seconds"
    assert [(vote.answer, vote.count) for vote in outcome.answer.votes] == [("4", 4)]


@pytest.mark.parametrize(
    ("draw", "interval"),
    [(Draw(n=2), 8), (Draw(live=True), 1), (Draw(n=2, drop=third), 1), (Draw(n=2, until=lambda paths: False), 8)],
)
async def test_tokens_come_together_only_where_nobody_waits_for_one(draw: Draw, interval: int) -> None:
    asked: list[GenerateRequest] = []

    class Told(Scripted):
        def generate(self, request: GenerateRequest) -> Any:
            asked.append(request)
            return super().generate(request)

    await drawn(Told(lambda p, s, i: WORDS), lambda ctx: ctx.sample(draw=draw))
    assert [request.interval for request in asked] == [interval]
