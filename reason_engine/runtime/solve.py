"""Runs one strategy on one problem: `solve`. A spent budget ends a run with its best answer; errors leave ungrouped.

Errors are classified by the boundary that failed: RequestError, EngineError and VerifierError pass as they are, an
error of a strategy's own code becomes StrategyError.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, cast

from reason_engine.answers import Equality
from reason_engine.contracts import Engine, Powers, Retriever
from reason_engine.errors import (
    BudgetExhausted,
    ContextLengthExceeded,
    ReasonError,
    StrategyError,
)
from reason_engine.profile import Profile
from reason_engine.runtime.answer_form import borders_of
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.context import Context
from reason_engine.runtime.events import Closed, Event
from reason_engine.runtime.nested import capable
from reason_engine.runtime.outcome import Outcome, conclude, fallback, stopped_by
from reason_engine.runtime.run import Run
from reason_engine.runtime.sources import cited, informed
from reason_engine.runtime.stream_text import Narrator, Piece
from reason_engine.runtime.verify import alternatives_of, appointed, checker_of
from reason_engine.types import Answer, DraftBy, Limits, Problem, Sampling

GRACE_SECONDS = 1.0
"""After the deadline a run has this long to hand in what its aborted paths had generated."""


class Solvable(Protocol):
    """What `solve` needs of a strategy; `reason_engine.strategies.Strategy` is the one class that has it."""

    @property
    def title(self) -> str: ...
    @property
    def wants(self) -> frozenset[str]: ...
    @property
    def judges_steps(self) -> bool: ...
    def judge_on(self, profile: Profile, *, checked: bool) -> tuple[str, dict[str, object]] | None: ...
    @property
    def drafter(self) -> DraftBy: ...
    @property
    def knowledge(self) -> bool: ...
    async def run(self, problem: Problem, ctx: Context) -> Answer: ...


def ignore(_: object) -> None:
    """Nobody listens."""


async def solve(
    strategy: Solvable,
    problem: Problem,
    engine: Engine,
    *,
    profile: Profile | None = None,
    limits: Limits | Budget | None = None,
    sampling: Sampling | None = None,
    temperature: float | None = None,
    seed: int = 0,
    adapter: str | None = None,
    think: bool | None = None,
    equality: Equality | None = None,
    run_id: str | None = None,
    powers: Powers | None = None,
    knowledge: Retriever | None = None,
    halted: Callable[[], bool] = lambda: False,
    publish: Callable[[Event], None] = ignore,
    say: Callable[[Piece], None] = ignore,
) -> Outcome:
    """Answer `problem` by `strategy` on `engine`.

    `sampling` carries the request's own parameters (`max_tokens` 0: the rest of the context), `temperature` the
    request's own where it named one. `powers`: what verifiers may do on this machine; none given: nothing. `knowledge`:
    the operator's documents. `publish` gets every event, `say` every piece of `reasoning` and `content` as it becomes
    certain; joined they equal the outcome's fields. Once `halted` is true, whatever runs is aborted and nothing new
    begins. A `Budget` in place of limits is shared with other runs.
    Raises RequestError (nothing was generated), EngineError, VerifierError, StrategyError.
    """
    budget = limits if isinstance(limits, Budget) else Budget(limits or Limits())
    own, asked = equality or Equality(), sampling or Sampling(max_tokens=0)
    run = Run(
        id=run_id or f"run-{uuid.uuid4().hex}",
        engine=engine,
        problem=problem,
        profile=profile or Profile(),
        budget=budget,
        sampling=asked if strategy.drafter == "default" else replace(asked, draft=strategy.drafter),
        strategy=strategy.title,
        seed=seed,
        publish=ignore,
        equality=own,
        temperature=temperature,
        adapter=adapter,
        think=think,
        powers=powers or Powers(),
        knowledge=knowledge,
        halted=halted,
    )
    narrator = Narrator(lambda prompt: borders_of(run, prompt), say)

    def tell(event: Event) -> None:
        narrator.feed(event)
        publish(event)

    run.publish = tell
    try:
        if strategy.knowledge:
            run.problem = await informed(problem, knowledge, engine, run.profile)
        prompt_tokens = _admit(run, strategy)
        answer = await _run(run, strategy)
        answer = fallback(run, answer)
        return conclude(run, answer, narrator, stopped_by(run, answer), prompt_tokens)
    finally:
        if equality is None:
            await own.close()


def _admit(run: Run, strategy: Solvable) -> int:
    """Everything that can be refused before a token is spent. Returns the tokens of the client's prompt."""
    capable(run, strategy)
    run.checker = checker_of(run.profile, run.problem)
    if named := appointed(run, strategy):
        run.verifier_name, run.verifier = named
        run.alternatives = alternatives_of(run.verifier)
    prompt = run.engine.render_chat(run.problem.turns(), tools=run.problem.tools, think=run.think)
    count = len(run.engine.tokenize(prompt))
    if count >= run.engine.info.context:
        raise ContextLengthExceeded(
            f"the prompt has {count} tokens; this model's context is {run.engine.info.context}, answer included",
            param="messages",
            code="context_length_exceeded",
        )
    return count


async def _run(run: Run, strategy: Solvable) -> Answer | None:
    """The strategy's answer, or None where the budget ended it first."""
    root = run.open(None, run.strategy)
    ctx = Context(run, root)
    if run.problem.bare is not None:
        ctx.note(sources=cited(run.problem.sources))
    left = (
        None if run.budget.deadline is None else run.budget.deadline - run.budget.started - run.budget.seconds
    )
    try:
        async with asyncio.timeout(None if left is None else max(0.0, left) + GRACE_SECONDS):
            return await strategy.run(run.problem, ctx)
    except TimeoutError:
        run.budget.note("budget-seconds")
        return None
    except Exception as error:  # a boundary: what a strategy's own code does wrong is named so
        cause = _first(error)
        if isinstance(cause, BudgetExhausted):
            return None
        if isinstance(cause, ReasonError):
            raise cause from None
        raise StrategyError(f"strategy {run.strategy}: {type(cause).__name__}: {cause}") from cause
    finally:
        run.emit(Closed(root, dict(ctx.place.notes), run.budget.seconds))


def _first(error: BaseException) -> BaseException:
    """The first real error of a group: a spent budget counts only where nothing else went wrong."""
    leaves = _leaves(error)
    return next((leaf for leaf in leaves if not isinstance(leaf, BudgetExhausted)), leaves[0])


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast(BaseExceptionGroup[BaseException], error)
    return [leaf for inner in group.exceptions for leaf in _leaves(inner)]
