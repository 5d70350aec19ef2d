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

from reason_engine.answers import AnswerSpec
from reason_engine.contracts import Capabilities, Checker, Parsed
from reason_engine.errors import BudgetExhausted, CapabilityMissing, ContextLengthExceeded
from reason_engine.knowledge.quoting import fetch
from reason_engine.profile import Profile
from reason_engine.runtime import answering
from reason_engine.runtime import verify as scoring
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.calls import answer_form, must_call_tool
from reason_engine.runtime.drawn import PathCache
from reason_engine.runtime.run import Run
from reason_engine.runtime.sampling import PathRequest, alternatives, cached_paths
from reason_engine.runtime.trace import Closed, Opened, Proposed, Scored
from reason_engine.runtime.verify import (
    NamedVerifier,
    Requirements,
    check_capabilities,
    not_available,
    resolve_verifier,
)
from reason_engine.types import (
    Answer,
    Choice,
    ChoiceRequest,
    Draw,
    ModelInfo,
    Passage,
    Path,
    Problem,
    Prompt,
    Score,
    ScoreRequest,
    Scores,
    Structured,
    Usage,
)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class SpanState:
    """What changes in a span: counts its calls and keeps its notes until the node closes."""

    calls: int = 0
    latest: int = 0
    """The call whose paths a draw goes on with."""
    notes: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Context:
    """One strategy's view of a run, at one node of its trace; `contracts.Call` is all that a verifier sees of it."""

    run: Run
    node: int = 0
    names: tuple[str, ...] = ()
    verifier: NamedVerifier | None = None
    """Of this strategy alone; one nested in another has its own."""
    span_state: SpanState = field(default_factory=SpanState)
    stage: str | None = None
    """Set while a verifier works: its tokens are accounted under its name."""
    cache: PathCache[Path] | None = None
    """Inside another strategy: paths of the same prompt that were drawn already."""
    live: bool = True
    """Whether text may be shown as it is made."""

    @property
    def problem(self) -> Problem:
        return self.run.problem

    @property
    def profile(self) -> Profile:
        return self.run.profile

    @property
    def caps(self) -> Capabilities:
        return self.run.engine.caps

    @property
    def info(self) -> ModelInfo:
        return self.run.engine.info

    @property
    def budget(self) -> Budget:
        return self.run.budget

    @property
    def checker(self) -> Checker | None:
        """The exact checker of the task that the question belongs to."""
        return self.run.checker

    @property
    def verifier_name(self) -> str:
        return self.verifier.name if self.verifier else ""

    @property
    def temperature(self) -> float | None:
        """The request's own, where it named one."""
        return self.run.temperature

    @property
    def max_tokens(self) -> int:
        """The request's own limit of a path; 0: the rest of the context."""
        return self.run.sampling.max_tokens

    @property
    def spec(self) -> AnswerSpec:
        """The kind of answer that the question wants."""
        return self.run.spec

    @property
    def thinks(self) -> bool:
        """Whether the model thinks by itself here: it can, and the request did not turn it off."""
        return self.info.thinking(self.run.think)

    @property
    def form(self) -> Structured | None:
        """What the text of the final answer must be; None where it is free."""
        return answer_form(self.problem)

    @property
    def opening(self) -> str:
        """What a final answer begins with: the mark of a call where one must be made."""
        return self.info.tool_opening if must_call_tool(self.problem) else ""

    @asynccontextmanager
    async def span(self, name: str) -> AsyncGenerator[Context]:
        """A child node of the trace, closed with its notes when the block ends."""
        node = self.run.open(Opened(0, self.node, name))
        child = replace(self, node=node, names=(*self.names, name), span_state=SpanState())
        try:
            yield child
        finally:
            self.run.emit(Closed(node, dict(child.span_state.notes), self.budget.seconds))

    @asynccontextmanager
    async def nested(
        self, name: str, strategy: Requirements, cache: PathCache[Path], *, live: bool = False
    ) -> AsyncGenerator[Context]:
        """A span in which another strategy works, with its own verifier and what is in the cache in place of new paths
        for the same prompt and sampling. `live`: its text may be shown as it is made, since nothing follows it.

        Raises RequestError kinds for what the strategy lacks here.
        """
        verifier = self.admit(strategy)
        async with self.span(name) as here:
            yield replace(here, verifier=verifier, cache=cache.reader(), live=live)

    def admit(self, strategy: Requirements) -> NamedVerifier | None:
        """The verifier of a strategy that can run here. Raises RequestError kinds for what it lacks."""
        check_capabilities(self.run, strategy)
        return resolve_verifier(self.run, strategy)

    async def sample(self, prompt: str | None = None, draw: Draw = Draw()) -> list[Path]:
        """Up to n paths of one prompt, together, as one engine request; fewer only when the budget ran out.

        `prompt` is the user's turn; default: the question. Raises BudgetExhausted if not one path could be started,
        ContextLengthExceeded if the prompt does not fit.
        """
        draw = self._thoughtful(draw)
        prefill = draw.prefill + (self.opening if draw.final else "")
        base = self.render(prompt, final=draw.final)
        sent = self.tokenized(prompt, prefill=prefill, final=draw.final)
        return await cached_paths(self.run, self._request(sent, base, prefill, draw), self.cache)

    async def extend(self, path: Path, draw: Draw = Draw(stage="extend"), insert: str = "") -> list[Path]:
        """Up to n continuations of a partial path, exactly where its tokens ended; its prefix is in the cache.

        `insert` is put between: given text, not generated. What ended the path (an end of sequence) is left out.
        Raises CapabilityMissing on an engine that cannot continue token ids.
        """
        if not self.caps.continuation:
            raise not_available(
                f"strategy {self.run.strategy} continues partial paths, which this engine cannot do; "
                "use the embedded or the vllm engine"
            )
        insert += self.opening if draw.final else ""
        text = path.text + insert
        sent = Prompt(path.prompt + text, self.run.prompts.continued(path, insert))
        return await cached_paths(self.run, replace(self._request(sent, path.prompt, text, draw), by_ids=True))

    async def choice(
        self,
        prompt: str,
        options: tuple[str, ...],
        *,
        prefill: str = "",
        stage: str = "choice",
        after: Path | None = None,
    ) -> Choice:
        """The model's probabilities over a few continuations, for the price of one forward. `after`: of a path, exactly
        where its tokens ended, `prefill` between."""
        budget = self.budget
        if not self.caps.choose:
            raise not_available(
                f"strategy {self.run.strategy} asks for probabilities of given words, which this engine cannot tell"
            )
        if budget.overdue:
            raise budget.exhausted("budget-seconds")
        if self.run.halted():
            raise BudgetExhausted("cancelled")
        asked = self.tokenized(prompt, prefill=prefill, plain=True)
        if after is not None:
            asked = Prompt(after.prompt + after.text + prefill, self.run.prompts.continued(after, prefill))
        lease, used = await budget.lease(1, 1), 0
        try:
            request = ChoiceRequest(self.run.request_id(), asked, options, self.run.adapter)
            choice = await budget.in_time(self.run.engine.choose(request))
            used = choice.completion_tokens
        finally:
            budget.settle(lease.tokens, used)
        usage = Usage(choice.prompt_tokens, choice.cached_tokens, choice.completion_tokens)
        self.run.charge(self.stage or stage, usage)
        return choice

    async def score(self, paths: Sequence[Path]) -> list[Score | None]:
        """The chosen verifier's score of each path; None where it failed on it. Raises VerifierError if on all."""
        return await scoring.score(self.run, self.verifier, self.staged(self.verifier_name), paths)

    async def score_steps(self, path: Path) -> list[Score]:
        """The chosen process verifier's score of each step of a path, finished or not.

        Raises RequestError where the verifier judges whole answers only, VerifierError where it fails.
        """
        return await scoring.score_steps(self.run, self.verifier, self.staged(self.verifier_name), path)

    async def rate(self, request: ScoreRequest, stage: str = "rate") -> Scores:
        """Values of texts by a model head that the engine serves; generates nothing. Raises CapabilityMissing."""
        run = self.run
        if request.task != "embed" and not self.caps.score:
            raise CapabilityMissing(
                f"strategy {run.strategy} needs a reward model, and this engine serves none; "
                "serve one beside the model with --reward-model NAME=PATH",
                param="reasoning.verifier",
                code="capability_missing",
            )
        if run.budget.overdue:
            raise run.budget.exhausted("budget-seconds")
        scores = await run.budget.in_time(run.engine.score(replace(request, id=run.request_id())))
        run.charge(self.stage or stage, Usage(scores.prompt_tokens))
        return scores

    def staged(self, stage: str) -> Context:
        return replace(self, stage=stage)

    async def retrieve(self, query: str, k: int = 4) -> list[Passage]:
        """The operator's passages nearest to the query, best first; none where the server has no knowledge."""
        run = self.run
        return await fetch(run.knowledge, query, k, self.info.specials) if run.knowledge else []

    async def gather_within_budget(
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

    async def merge_equal(self, answers: list[str]) -> list[str]:
        """Each answer as the first of those that it equals."""
        return await answering.same_named(self.run, answers)

    def second_look(self, paths: Sequence[Path]) -> list[Path]:
        """The paths of a first wave with their answers read again, where what they wrote shows that the question wants
        another kind of answer than it seemed to."""
        before, read = self.spec.kind, answering.reread(self.run, paths)
        if self.spec.kind != before:
            self.note(kind=[before, self.spec.kind])
        return read

    def propose(self, answer: Answer, score: float) -> Answer:
        """Record the best answer so far: streamed, and the result if the run is cut."""
        run = self.run
        if run.best is None or score >= run.best[0]:
            run.best = (score, answer)
            run.emit(Proposed(self.node, answer.value, score, self.budget.seconds))
        return answer

    def set_fallback(self, answer: Answer) -> None:
        """Keep an answer that was not accepted for a cut run, below whatever is proposed later."""
        if answer.path:
            self.run.best = (float("-inf"), answer)

    def record_score(self, node: int, value: float, *, by: str, detail: str = "") -> None:
        """Record a judgement on a node of the trace."""
        self.run.emit(Scored(node, value, by, detail, self.budget.seconds))

    def note(self, **data: Any) -> None:
        """Anything else for the trace: votes, values, reasons."""
        self.span_state.notes.update(data)

    def format_prompt(self, mode: Literal["steps", "direct"], text: str | None = None) -> str:
        """The question (or `text`), with what asks for `steps`, in the profile's words or those that suit the kind of
        answer, or for a `direct` answer. A model that thinks by itself is not asked for steps, only for the form."""
        steps = answering.asking(self.run.asked or self.spec, self.profile, thinks=self.thinks)
        suffix = self.profile.ask.direct if mode == "direct" else steps
        asked = self.problem.question if text is None else text
        return f"{asked}\n{suffix}" if suffix else asked

    def render(self, prompt: str | None = None, *, prefill: str = "", final: bool = False, plain: bool = False) -> str:
        """The prompt as the model's template has it. `plain`: thinking off, for a word's probability."""
        problem, run = self.problem, self.run
        think = False if self.thinks and (plain or (final and self.form)) else run.think
        tools = problem.tools if final else ()
        return run.prompts.render(problem.turns(prompt), tools=tools, think=think, prefill=prefill)

    def tokenized(
        self, prompt: str | None = None, *, prefill: str = "", final: bool = False, plain: bool = False
    ) -> Prompt:
        """The rendered prompt with its tokens."""
        return self.run.prompts.prompt(self.render(prompt, prefill=prefill, final=final, plain=plain))

    def count_tokens(self, text: str) -> int:
        return len(self.run.prompts.prompt(text).ids)

    def parse(self, path: Path) -> Parsed:
        return self.run.engine.parse(path.text, prompt=path.prompt)

    def read_answer(self, text: str, *, prompt: str = "", tools: bool = False) -> str | None:
        """The answer that a vote counts; None where the text gives none. `tools`: a tool call is an answer."""
        found = answering.read_path(self.run, text, prompt, tools=tools)
        return found and found.value

    def _thoughtful(self, draw: Draw) -> Draw:
        """For a model that thinks, as many paths as the budget has whole thoughts for."""
        if not (draw.final and self.thinks):
            return draw
        fitting = answering.whole_thoughts(self.run, draw)
        if fitting.n < draw.n:
            self.note(paths=f"{fitting.n} of {draw.n}: the budget has no room for more whole thoughts")
        return fitting

    def _request(self, prompt: Prompt, base: str, prefill: str, draw: Draw) -> PathRequest:
        """A draw with what the request, the profile and the engine leave of it. Raises ContextLengthExceeded."""
        run, asked = self.run, self.run.sampling
        room = self.info.context - len(prompt.ids)
        if room <= 0:
            raise ContextLengthExceeded(
                f"the prompt has {len(prompt.ids)} tokens; this model's context is {self.info.context}",
                param="messages",
                code="context_length_exceeded",
            )
        if not draw.after:
            self.span_state.latest, self.span_state.calls = self.span_state.calls, self.span_state.calls + 1
        seed = zlib.crc32(repr((run.seed, self.names, self.span_state.latest)).encode()) + draw.after
        # A step's own stop, else the request's where the whole text of the path is content.
        whole, force = draw.final and run.plain and not self.thinks, draw.final and answering.forcible(run)
        if force and room > 4 * answering.OPENING_ROOM:
            room -= answering.OPENING_ROOM
        most = min(room, draw.max_tokens or room, asked.max_tokens or room)
        thinking = most - answering.ANSWER_ROOM if draw.final and self.thinks else 0
        judged = self.verifier and self.verifier.alternatives
        sampling = replace(
            asked,
            temperature=asked.temperature if draw.temperature is None else draw.temperature,
            seed=seed % 2**31,
            stop=draw.stop or (asked.stop if whole else ()),
            include_stop=bool(draw.stop),
            structured=self.form if draw.final else None,
            logprobs=alternatives(self.caps.logprobs, draw.logprobs, asked.logprobs, judged),
            # The request's own limit bounds each path; a step's limit bounds the step.
            max_tokens=most,
            thinking=thinking if thinking > answering.ANSWER_ROOM else None,
        )
        accounted = replace(draw, stage=self.stage or draw.stage, live=draw.live and self.live)
        return PathRequest(
            prompt, base, prefill, accounted, sampling, self.node, candidate=self.stage is None, force=force
        )  # fmt: skip
