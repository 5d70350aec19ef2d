"""Runs one strategy on one problem: `solve`, and `solve_sync` for programs that are not asynchronous.

A spent budget ends a run with its best answer; errors leave ungrouped. They are classified by the boundary that failed:
RequestError, EngineError and VerifierError pass as they are, an error of a strategy's own code becomes StrategyError.

The operator's documents are put before the question, so that every strategy and verifier reads them; at most half of
the context's room goes to them. Tasks are recognised by the question as it was asked (`Problem.asked`): a document that
happens to pose a task is no task.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, Protocol, cast

from reason_engine.answers import AnswerKind, Equality
from reason_engine.contracts import Engine, Powers, Retriever
from reason_engine.errors import (
    BudgetExhausted,
    CapabilityMissing,
    ContextLengthExceeded,
    ReasonError,
    StrategyError,
    first_error,
)
from reason_engine.knowledge.quoting import TOP, fetch, fitting, quoted
from reason_engine.profile import Profile, read_profile
from reason_engine.runtime.answering import spec_of
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.context import Context
from reason_engine.runtime.prompts import PromptCache
from reason_engine.runtime.run import Run
from reason_engine.runtime.stream_text import Piece, TextStream
from reason_engine.runtime.trace import Closed, Event, Opened, Trace
from reason_engine.runtime.verify import NamedVerifier, Requirements, check_capabilities, checker_of, resolve_verifier
from reason_engine.types import (
    Answer,
    FinishReason,
    Limits,
    Passage,
    Path,
    Problem,
    Sampling,
    Stopped,
    TokenLogprob,
    ToolCall,
    Usage,
)

GRACE_SECONDS = 1.0
"""After the deadline a run has this long to hand in what its aborted paths had generated."""


class Solvable(Requirements, Protocol):
    """What `solve` needs of a strategy; `reason_engine.strategies.Strategy` is the one class that has it."""

    @property
    def knowledge(self) -> bool: ...
    @property
    def answer_kind(self) -> AnswerKind | None: ...
    async def run(self, problem: Problem, ctx: Context) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of `solve`. `prompt_tokens` is the client's prompt, once; `usage` sums every internal call;
    `content_tokens` of `usage.completion` are in `content`; `logprobs` belong to `content`."""

    id: str
    content: str
    reasoning: str | None
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    answer: Answer
    stopped: Stopped
    usage: Usage
    usage_by_stage: Mapping[str, Usage]
    content_tokens: int
    prompt_tokens: int
    samples: int
    seconds: float
    trace: Trace
    logprobs: tuple[TokenLogprob, ...] = ()
    sources: tuple[Passage, ...] | None = None
    """What was retrieved, in the order of its numbers; None where nothing was to be."""
    unread: int = 0
    """Finished paths that hold no answer of the kind that was asked for, also after they were asked once more."""
    cut: int = 0
    """Paths that a limit ended before they had answered."""
    paths: tuple[Path, ...] = ()
    """The paths that were to be answers, in the order of drawing."""
    filtered: str = ""
    """The operator's rule that stopped the answer."""


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
    thought: int | None = None,
    force: bool = True,
    equality: Equality | None = None,
    run_id: str | None = None,
    powers: Powers | None = None,
    knowledge: Retriever | None = None,
    prompts: PromptCache | None = None,
    halted: Callable[[], bool] = lambda: False,
    publish: Callable[[Event], None] = ignore,
    say: Callable[[Piece], None] = ignore,
) -> Outcome:
    """Answer `problem` by `strategy` on `engine`.

    `sampling` carries the request's own parameters (`max_tokens` 0: the rest of the context), `temperature` the
    request's own where it named one. `powers`: what verifiers may do on this machine; none given: nothing. `knowledge`:
    the operator's documents. `thought`: tokens that a thought may take before fewer paths are drawn instead.
    `force`: whether paths without an answer are asked for one once more.
    `prompts`: the request's, where some are rendered already or several runs share them.
    `publish` gets every event, `say` every piece of `reasoning` and `content` as it becomes certain; joined they equal
    the outcome's fields. Once `halted` is true, whatever runs is aborted and nothing new begins. A `Budget` in place of
    limits is shared with other runs.
    Raises RequestError (nothing was generated), EngineError, VerifierError, StrategyError.
    """
    budget = limits if isinstance(limits, Budget) else Budget(limits or Limits())
    own, asked = equality or Equality(), sampling or Sampling(max_tokens=0)
    run = Run(
        id=run_id or f"run-{uuid.uuid4().hex}", engine=engine, problem=problem, profile=profile or Profile(),
        budget=budget, sampling=asked if strategy.drafter == "default" else replace(asked, draft=strategy.drafter),
        strategy=strategy.title, seed=seed, publish=ignore, equality=own, prompts=prompts or PromptCache(engine),
        spec=spec_of(problem, strategy.answer_kind), given=strategy.answer_kind is not None, temperature=temperature,
        adapter=adapter, think=think, thought=thought, force=force, powers=powers or Powers(), knowledge=knowledge,
        halted=halted,
    )  # fmt: skip
    texts = TextStream(run.borders, say)

    def hear(event: Event) -> None:
        texts.feed(event)
        publish(event)

    run.publish = hear
    try:
        if strategy.knowledge:
            run.problem = await augment_with_sources(run)
        prompt_tokens, verifier = _admit(run, strategy)
        answer = fallback(run, await _run(run, strategy, verifier))
        return conclude(run, answer, texts, prompt_tokens)
    finally:
        if equality is None:
            await own.close()


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

    async def run() -> Outcome:
        await engine.start()
        try:
            asked = profile or read_profile(FilePath(engine.info.path))
            return await solve(strategy, problem, engine, profile=asked, limits=limits, sampling=sampling, seed=seed)
        finally:
            await engine.close()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise RuntimeError("an event loop is running here: await reason_engine.solve(...) instead")
    return asyncio.run(run())


async def augment_with_sources(run: Run) -> Problem:
    """The problem with its sources. Raises CapabilityMissing where there are no documents to retrieve from."""
    problem, prompts, info = run.problem, run.prompts, run.engine.info
    if run.knowledge is None:
        raise CapabilityMissing(
            "reasoning.knowledge: there are no documents here; start with --knowledge DIR to retrieve from a folder",
            param="reasoning.knowledge",
            code="capability_missing",
        )
    found = await fetch(run.knowledge, problem.question, TOP, info.specials)
    used = len(prompts.prompt(prompts.render(problem.turns(), tools=problem.tools)).ids)
    kept = fitting(found, lambda text: len(prompts.prompt(text).ids), (info.context - used) // 2)
    question = quoted(problem.question, kept, run.profile.ask.sources)
    return replace(problem, question=question, sources=kept, bare=problem.question)


def _admit(run: Run, strategy: Solvable) -> tuple[int, NamedVerifier | None]:
    """Refuses whatever can be refused before a token is spent. Returns the tokens of the client's prompt, and the
    strategy's verifier."""
    check_capabilities(run, strategy)
    run.checker = checker_of(run.profile, run.problem)
    verifier = resolve_verifier(run, strategy)
    prompts, problem = run.prompts, run.problem
    count = len(prompts.prompt(prompts.render(problem.turns(), tools=problem.tools, think=run.think)).ids)
    if count >= run.engine.info.context:
        raise ContextLengthExceeded(
            f"the prompt has {count} tokens; this model's context is {run.engine.info.context}, answer included",
            param="messages",
            code="context_length_exceeded",
        )
    return count, verifier


async def _run(run: Run, strategy: Solvable, verifier: NamedVerifier | None) -> Answer | None:
    """The strategy's answer, or None where the budget ended it first."""
    root = run.open(Opened(0, None, run.strategy))
    ctx = Context(run, root, verifier=verifier)
    if run.problem.bare is not None:
        ctx.note(sources=numbered_sources(run.problem.sources))
    if not run.engine.info.system_role and any(turn.role in ("system", "developer") for turn in run.problem.history):
        ctx.note(system="the template takes no system turn: its text begins the first user turn")
    left = run.budget.seconds_left
    try:
        async with _until(left):
            return await strategy.run(run.problem, ctx)
    except TimeoutError:
        run.budget.note("budget-seconds")
        return None
    except Exception as error:  # a boundary: what a strategy's own code does wrong is named so
        cause = first_error(error)
        if isinstance(cause, BudgetExhausted):
            return None
        if isinstance(cause, ReasonError):
            raise cause from None
        raise StrategyError(f"strategy {run.strategy}: {type(cause).__name__}: {cause}") from cause
    finally:
        run.emit(Closed(root, dict(ctx.span_state.notes), run.budget.seconds))


@asynccontextmanager
async def _until(left: float | None) -> AsyncGenerator[None]:
    """Raises TimeoutError when the grace after the deadline is over. It begins when this loop hears of the deadline: a
    process that was held up until then has all of it."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        begin = None
        if left is not None:
            begin = loop.call_later(max(0.0, left), lambda: limit.reschedule(loop.time() + GRACE_SECONDS))
        try:
            yield
        finally:
            if begin:
                begin.cancel()


def fallback(run: Run, answer: Answer | None) -> Answer:
    """The answer with a path. Where the strategy gave none: the best proposal, else the most certain finished path,
    else the longest partial one; the last two with no confidence."""
    if answer is None and run.best:
        answer = run.best[1]
    if answer and answer.path:
        return answer
    # A step or a thought that ended where it was told to end is no finished answer.
    ends = (run.profile.step_end, run.engine.info.think_end)
    finished = [path for path in run.candidates if path.finished and path.stop_reason not in ends]
    # Ties (no log-probabilities known) go to the first path drawn.
    if finished:
        path = max(finished, key=lambda p: p.mean_logprob)
    elif run.candidates:
        path = replace(max(run.candidates, key=lambda p: len(p.text)), finish_reason="length")
    else:
        return answer or Answer()
    return Answer(path, path.answer, None, answer.votes if answer else ())


def conclude(run: Run, answer: Answer, texts: TextStream, prompt_tokens: int) -> Outcome:
    """Fold a finished run into its outcome. It stopped by the first cut of its budget, a decision, or being done."""
    path, stopped = answer.path, run.budget.cut or cast(Stopped, "decided" if answer.decided else "done")
    calls = run.engine.parse(path.text, prompt=path.prompt).tool_calls if path and run.problem.tools else ()
    texts.finish(path, called=bool(calls))
    content = texts.content
    finish: FinishReason = path.finish_reason if path else "length"
    if texts.stopped or calls:
        finish = "tool_calls" if calls else "stop"
    seconds = run.budget.seconds
    meta = {
        "id": run.id, "model": run.engine.info.name, "precision": run.engine.info.precision, "strategy": run.strategy,
        "seed": run.seed,
        "question": run.problem.asked, "answer": answer.value, "stopped": stopped, "seconds": round(seconds, 6),
    }  # fmt: skip
    return Outcome(
        id=run.id, content=content, reasoning=texts.reasoning, tool_calls=calls, finish_reason=finish, answer=answer,
        stopped=stopped, usage=sum(run.usage.values(), Usage()), usage_by_stage=dict(run.usage),
        content_tokens=_content_tokens(run, path, content), prompt_tokens=prompt_tokens, samples=run.samples,
        unread=run.unread, cut=run.cut, paths=tuple(run.finals.values()), seconds=seconds,
        trace=Trace.from_events(run.log, meta),
        logprobs=_content_logprobs(path, content) if run.sampling.logprobs is not None else (),
        sources=None if run.problem.bare is None else run.problem.sources,
    )  # fmt: skip


def _content_tokens(run: Run, path: Path | None, content: str) -> int:
    if not path or not content:
        return 0
    return path.tokens if content == path.text else min(path.tokens, len(run.prompts.prompt(content).ids))


def _content_logprobs(path: Path | None, content: str) -> tuple[TokenLogprob, ...]:
    if not path or not content:
        return ()
    start, at = path.text.rfind(content) - len(path.prefill), 0
    kept: list[TokenLogprob] = []
    for token in path.logprobs:
        end = at + len(token.token)
        if at < start + len(content) and end > start:
            kept.append(token)
        at = end
    return tuple(kept)


def numbered_sources(sources: Sequence[Passage]) -> list[dict[str, Any]]:
    """The sources as a trace notes them and as a client reads them, numbered as the prompt numbers them."""
    return [{"n": n, "source": p.source, "text": p.text} for n, p in enumerate(sources, 1)]
