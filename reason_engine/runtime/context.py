"""Everything a strategy may do, passed to it explicitly. A child context is a child node of the trace.

Seeds come from the place: crc32 of (request seed, names of the spans, number of the call in its span); sample i of a
call draws with that seed + i. So the same request with the same seed makes the same trace.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from reason_engine.errors import BudgetExhausted, CapabilityMissing, ContextLengthExceeded
from reason_engine.knowledge.quoting import fetch
from reason_engine.runtime import verify as scoring
from reason_engine.runtime.answer_form import PLAIN, form_of, must_call, read_answer
from reason_engine.runtime.events import Closed, Proposed, Scored
from reason_engine.runtime.nested import Stock, draw
from reason_engine.runtime.run import Run
from reason_engine.runtime.sampling import Draw, Drop, Plan, continued
from reason_engine.types import (
    Answer,
    Choice,
    ChoiceRequest,
    Message,
    Passage,
    Path,
    Problem,
    Score,
    ScoreRequest,
    Scores,
    Usage,
    Vote,
)

Item = TypeVar("Item")
Result = TypeVar("Result")
Until = Callable[[list[Path]], bool]


@dataclass
class Place:
    """Where a context stands: counts its calls and keeps its notes until the node closes."""

    calls: int = 0
    latest: int = 0
    """The call whose paths a draw goes on with."""
    notes: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Context:
    """The strategy's hands. Implements `contracts.Call`, which is all that a verifier sees of it."""

    run: Run
    node: int = 0
    names: tuple[str, ...] = ()
    place: Place = field(default_factory=Place)
    stage: str | None = None
    """Set while a verifier works: its tokens are accounted under its name."""
    stock: Stock | None = None
    """Inside another strategy: paths of the same prompt that were drawn already."""
    live: bool = True
    """Whether text may be shown as it is made."""

    @property
    def problem(self) -> Problem:
        return self.run.problem

    @property
    def opening(self) -> str:
        """What a final answer begins with: the mark of a call where one must be made."""
        return f"{self.run.engine.info.tool_start}\n" if must_call(self.problem) else ""

    @asynccontextmanager
    async def span(self, name: str) -> AsyncGenerator[Context]:
        """A child node of the trace, closed with its notes when the block ends."""
        node = self.run.open(self.node, name)
        child = replace(self, node=node, names=(*self.names, name), place=Place())
        try:
            yield child
        finally:
            self.run.emit(Closed(node, dict(child.place.notes), self.run.budget.seconds))

    async def sample(
        self,
        prompt: str | None = None,
        *,
        n: int = 1,
        max_tokens: int | None = None,
        temperature: float | None = None,
        stop: tuple[str, ...] = (),
        prefill: str = "",
        logprobs: int | None = None,
        stage: str = "sample",
        until: Until | None = None,
        drop: Drop | None = None,
        final: bool = False,
        live: bool = False,
        after: int = 0,
    ) -> list[Path]:
        """Up to n paths of one prompt, together, as one engine request; fewer only when the budget ran out.

        `prompt` is the user's turn (default: the question), `prefill` the beginning of the model's. `until` sees the
        finished paths and aborts the rest by returning True; `drop` sees the new log-probabilities of path i and ends
        that path by returning True. `final`: the path is the answer, so the request's own
        tools, format and logprobs apply. `live`: its text may be shown as it is made. `after`: this goes on with the
        latest draw, of which there are so many paths, and draws what a larger one would have drawn next.
        Raises BudgetExhausted if not one path could be started, ContextLengthExceeded if the prompt does not fit.
        """
        prefill += self.opening if final else ""
        base = self.render(prompt, final=final)
        sent = self.render(prompt, prefill=prefill, final=final) if prefill else base
        ids = tuple(self.run.engine.tokenize(sent))
        plan = self._plan(sent, base, ids, n, max_tokens, temperature, stop, logprobs, stage, final, after)
        plan = replace(plan, prefill=prefill, until=until, drop=drop, live=live and self.live)
        return await draw(self.run, plan, self._reader(final), self.stock)

    async def extend(
        self,
        path: Path,
        *,
        insert: str = "",
        n: int = 1,
        max_tokens: int | None = None,
        temperature: float | None = None,
        stop: tuple[str, ...] = (),
        logprobs: int | None = None,
        stage: str = "extend",
        final: bool = False,
    ) -> list[Path]:
        """Up to n continuations of a partial path, exactly where its tokens ended; its prefix is in the cache.

        `insert` is put between: given text, not generated. What ended the path (an end of sequence) is left out.
        Raises CapabilityMissing on an engine that cannot continue token ids.
        """
        if not self.run.engine.caps.continuation:
            raise CapabilityMissing(
                f"strategy {self.run.strategy} continues partial paths, which this engine cannot do; "
                "use the embedded or the vllm engine",
                param="reasoning.strategy",
                code="strategy_not_available",
            )
        insert += self.opening if final else ""
        text = path.text + insert
        sent, ids = path.prompt + text, continued(self.run.engine, path, insert)
        plan = self._plan(sent, path.prompt, ids, n, max_tokens, temperature, stop, logprobs, stage, final)
        plan = replace(plan, prefill=text, by_ids=True)
        return await Draw(self.run, plan, self._reader(final)).run()

    async def choice(
        self, prompt: str, options: tuple[str, ...], *, prefill: str = "", stage: str = "choice"
    ) -> Choice:
        """The model's probabilities over a few continuations, for the price of one forward."""
        engine, budget = self.run.engine, self.run.budget
        if not engine.caps.choose:
            raise CapabilityMissing(
                f"strategy {self.run.strategy} asks for probabilities of given words, which this engine cannot tell",
                param="reasoning.strategy",
                code="strategy_not_available",
            )
        if budget.overdue:
            raise budget.exhausted("budget-seconds")
        if self.run.halted():
            raise BudgetExhausted("cancelled")
        rendered = self.render(prompt, prefill=prefill, plain=True)
        lease = await budget.lease(1, 1)
        used = 0
        try:
            request = ChoiceRequest(self.run.request_id(), rendered, options, self.run.adapter)
            choice = await engine.choose(request)
            used = choice.completion_tokens
        finally:
            budget.settle(lease.tokens, used)
        usage = Usage(choice.prompt_tokens, choice.cached_tokens, choice.completion_tokens)
        self.run.charge(self.stage or stage, usage)
        return choice

    async def score(self, paths: Sequence[Path]) -> list[Score | None]:
        """The chosen verifier's score of each path; None where it failed on it. Raises VerifierError if on all."""
        return await scoring.score(self.run, self.staged(self.run.verifier_name), paths)

    async def score_steps(self, path: Path) -> list[Score]:
        """The chosen process verifier's score of each step of a path, finished or not.

        Raises RequestError where the verifier judges whole answers only, VerifierError where it fails.
        """
        return await scoring.score_steps(self.run, self.staged(self.run.verifier_name), path)

    async def rate(
        self,
        inputs: Sequence[str],
        *,
        task: Literal["reward", "token_reward", "embed"] = "reward",
        model: str | None = None,
        stage: str = "rate",
        turns: Sequence[Message] = (),
        ends: Sequence[tuple[int, ...]] = (),
        prompts: Sequence[str] = (),
    ) -> Scores:
        """Values of texts by a model head that the engine serves; generates nothing. Raises CapabilityMissing."""
        request = ScoreRequest(
            self.run.request_id(), tuple(inputs), task, model, tuple(turns), tuple(ends), tuple(prompts)
        )
        return await scoring.rate(self.run, request, self.stage or stage)

    def staged(self, stage: str) -> Context:
        """This context with every token accounted under one name."""
        return replace(self, stage=stage)

    async def retrieve(self, query: str, k: int = 4) -> list[Passage]:
        """The operator's passages nearest to the query, best first; none where the server has no knowledge."""
        run = self.run
        return await fetch(run.knowledge, query, k, run.engine.info.specials) if run.knowledge else []

    async def together(
        self, work: Callable[[Item], Awaitable[Result]], items: Sequence[Item]
    ) -> list[Result | None]:
        """`work` on every item at once; None for those that the budget refused. Raises BudgetExhausted if all were."""
        refused: list[BudgetExhausted] = []

        async def one(item: Item) -> Result | None:
            try:
                return await work(item)
            except BudgetExhausted as error:
                refused.append(error)
                return None

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
        if items and len(refused) == len(items):
            raise refused[0]
        return [task.result() for task in tasks]

    async def votes(self, paths: Sequence[Path], weights: Sequence[float] | None = None) -> tuple[Vote, ...]:
        """Equal answers counted together, heaviest first (ties: first given). A weight is 1 unless given; no answer is
        no vote."""
        voters = [
            (path.answer, weights[i] if weights else 1.0)
            for i, path in enumerate(paths)
            if path.answer is not None
        ]
        names = await self._joined([answer for answer, _ in voters])
        counted: dict[str, Vote] = {}
        for name, (_, weight) in zip(names, voters, strict=True):
            vote = counted.get(name, Vote(name, 0))
            counted[name] = Vote(name, vote.count + 1, vote.weight + weight)
        return tuple(sorted(counted.values(), key=lambda vote: -vote.weight))

    async def voter(
        self, paths: Sequence[Path], answer: str, rank: Callable[[Path], float] = lambda path: 0.0
    ) -> Path:
        """The path of highest rank, then the most certain one, then the first, that gave this answer."""
        named = [p for p in paths if p.answer is not None]
        names = await self._joined([p.answer or "" for p in named])
        same = [p for p, name in zip(named, names, strict=True) if answer in (name, p.answer)]
        return max(same, key=lambda p: (rank(p), p.mean_logprob))

    def propose(self, answer: Answer, score: float) -> Answer:
        """Record the best answer so far: streamed, and the result if the run is cut. Returns it."""
        run = self.run
        if run.best is None or score >= run.best[0]:
            run.best = (score, answer)
            run.emit(Proposed(self.node, answer.value, score, run.budget.seconds))
        return answer

    def judge(self, node: int, value: float, *, by: str, detail: str = "") -> None:
        """Record a judgement on a node of the trace."""
        self.run.emit(Scored(node, value, by, detail, self.run.budget.seconds))

    def note(self, **data: Any) -> None:
        """Anything else for the trace: votes, values, reasons."""
        self.place.notes.update(data)

    def worded(self, mode: str, text: str | None = None) -> str:
        """The question (or `text`), with what the profile appends to ask for `steps` or a `direct` answer.

        A model that thinks by itself is asked plainly for steps too.
        """
        ask = self.run.profile.ask
        suffix = ask.direct if mode == "direct" else ("" if self.run.engine.info.thinks else ask.steps)
        asked = self.problem.question if text is None else text
        return f"{asked}\n{suffix}" if suffix else asked

    def render(
        self, prompt: str | None = None, *, prefill: str = "", final: bool = False, plain: bool = False
    ) -> str:
        """The prompt as the model's template has it. `plain`: thinking off, for a word's probability."""
        problem, run = self.problem, self.run
        think = False if plain and run.engine.info.thinks else run.think
        tools = problem.tools if final else ()
        return run.engine.render_chat(problem.turns(prompt), tools=tools, think=think, prefill=prefill)

    async def _joined(self, answers: list[str]) -> list[str]:
        """Each answer as the first of those that it equals."""
        problem = self.problem
        # Answers of a task with a checker are texts that its rule tells apart: (10-4)*4 is not the vote 24. Tool calls
        # and JSON are canonical already.
        if self.run.checker or problem.tools or problem.structured:
            return answers
        return await self.run.equality.cluster(answers)

    def _stop(self, stop: tuple[str, ...], final: bool) -> tuple[str, ...]:
        """A step's own stop, else the request's where the whole text of the path is content."""
        run = self.run
        if stop or not final or run.engine.info.thinks or run.strategy not in PLAIN:
            return stop
        return run.sampling.stop

    def _plan(
        self,
        prompt: str,
        base: str,
        ids: tuple[int, ...],
        n: int,
        max_tokens: int | None,
        temperature: float | None,
        stop: tuple[str, ...],
        logprobs: int | None,
        stage: str,
        final: bool,
        after: int = 0,
    ) -> Plan:
        run, caps = self.run, self.run.engine.caps
        room = run.engine.info.context - len(ids)
        if room <= 0:
            raise ContextLengthExceeded(
                f"the prompt has {len(ids)} tokens; this model's context is {run.engine.info.context}",
                param="messages",
                code="context_length_exceeded",
            )
        # The request's own limit bounds each path; a step's limit bounds the step.
        limit = min(room, max_tokens or room, run.sampling.max_tokens or room)
        wanted = max(
            (k for k in (logprobs, run.sampling.logprobs, run.alternatives) if k is not None), default=None
        )
        if not after:
            self.place.latest, self.place.calls = self.place.calls, self.place.calls + 1
        seed = zlib.crc32(repr((run.seed, self.names, self.place.latest)).encode()) + after
        sampling = replace(
            run.sampling,
            temperature=run.sampling.temperature if temperature is None else temperature,
            seed=seed % 2**31,
            stop=self._stop(stop, final),
            include_stop=bool(stop),
            structured=form_of(self.problem) if final else None,
            logprobs=(0 if caps.logprobs >= 0 else None)
            if wanted is None
            else min(wanted, max(caps.logprobs, 0)),
            max_tokens=limit,
        )
        candidate = self.stage is None
        return Plan(
            prompt, base, ids, n, sampling, limit, self.stage or stage, self.node, candidate=candidate
        )

    def _reader(self, final: bool) -> Callable[[str], str | None]:
        return lambda text: read_answer(self.run, text, tools=final)
