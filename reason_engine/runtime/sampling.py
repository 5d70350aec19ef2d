"""Draws n paths of one prompt through the budget: leases, continuation, deadline, early stop, clean-up.

One engine request carries as many samples as the first lease allows (normally all n). A path that reaches the end of
its lease before its own limit goes on with another lease as a request of its own, whose prompt is the tokens so far
(their prefix is cached). A path that `drop` finds wanting is aborted alone, while the others run; where the engine
cannot do that, it runs on. Whatever ends a draw (deadline, decision, cancellation), the engine is told to abort and the
tokens it had made by then are counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from reason_engine.contracts import Engine
from reason_engine.errors import BudgetExhausted, EngineError
from reason_engine.runtime.budget import Lease
from reason_engine.runtime.events import Delta, Sampled
from reason_engine.runtime.run import Run
from reason_engine.types import Chunk, FinishReason, GenerateRequest, Path, Sampling, TokenLogprob, Usage

LONGEST_END = 8
"""Tokens of the longest mark that may be cut off the end of a path."""
Drop = Callable[[int, Sequence[TokenLogprob]], bool]
"""Sees the log-probabilities that path i of a draw has gained; True ends that path."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to draw. `prompt` is sent as it is; `base` is the prompt without `prefill`, which the path's text begins
    with; `prompt_ids` are the tokens of what is sent, and are sent in its place if `by_ids`; `limit` is the most tokens
    a path may have; `parent` is a node of the trace."""

    prompt: str
    base: str
    prompt_ids: tuple[int, ...]
    n: int
    sampling: Sampling
    limit: int
    stage: str
    parent: int
    prefill: str = ""
    live: bool = False
    candidate: bool = True
    by_ids: bool = False
    until: Callable[[list[Path]], bool] | None = None
    drop: Drop | None = None


@dataclass
class Draft:
    """A path while it grows."""

    index: int
    node: int
    parts: list[str] = field(default_factory=list[str])
    ids: list[int] = field(default_factory=list[int])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    tokens: int = 0
    leased: int = 0
    used: int = 0
    turns: int = 0
    dropped: bool = False
    finish: FinishReason | None = None
    stop_reason: str | int | None = None
    path: Path | None = None


class Draw:
    """One draw. `await run()` gives the paths in index order: fewer than n only where the budget ran out."""

    def __init__(self, run: Run, plan: Plan, read: Callable[[str], str | None]) -> None:
        self._run, self._plan, self._read = run, plan, read
        self._drafts: list[Draft] = []
        self._done: list[Path] = []
        self._decided = asyncio.Event()

    async def run(self) -> list[Path]:
        """Draw. Raises BudgetExhausted if not one path could be started."""
        plan = self._plan
        refused: BudgetExhausted | None = None
        if self._run.halted():
            raise BudgetExhausted("cancelled")
        granted = self._run.budget.admit(plan.n)
        self._run.samples += granted
        async with asyncio.TaskGroup() as group:
            while len(self._drafts) < granted and not self._decided.is_set():
                try:
                    lease = await self._run.budget.lease(granted - len(self._drafts), plan.limit)
                except BudgetExhausted as error:
                    refused = error
                    break
                group.create_task(self._batch([self._open() for _ in range(lease.paths)], lease))
        if refused and not self._drafts:
            raise refused
        paths = [draft.path for draft in self._drafts if draft.path]
        if plan.candidate:
            self._run.candidates.extend(paths)
        return paths

    async def _batch(self, drafts: list[Draft], lease: Lease) -> None:
        """Run drafts as one request; those cut by their lease go on with another one."""
        plan, first = self._plan, drafts[0]
        for draft in drafts:
            draft.leased, draft.used, draft.finish = lease.tokens, 0, None
        prompt: str | tuple[int, ...] = plan.prompt_ids if plan.by_ids else plan.prompt
        if first.turns:
            prompt = (*plan.prompt_ids, *first.ids)
        # A continuation draws with a seed of its own, so that it does not repeat the first lease's draws.
        seed = plan.sampling.seed + first.index + 1_000_003 * first.turns
        request = GenerateRequest(
            self._run.request_id(),
            prompt,
            len(drafts),
            replace(plan.sampling, max_tokens=lease.tokens, seed=seed % 2**31),
            self._run.adapter,
            search=self._run.id,
        )
        try:
            await self._stream(request, drafts)
        finally:
            for draft in drafts:
                self._settle(draft)
        again: list[Draft] = []
        for draft in drafts:
            cut = draft.dropped or self._decided.is_set()
            if draft.finish == "length" and draft.tokens < plan.limit and not cut:
                again.append(draft)
            else:
                self._close(draft)
        if not again:
            return
        if not self._run.engine.caps.continuation:
            self._run.budget.note("budget-tokens")
            for draft in again:
                self._close(draft)
            return
        async with asyncio.TaskGroup() as group:
            for draft in again:
                group.create_task(self._go_on(draft))

    async def _go_on(self, draft: Draft) -> None:
        try:
            lease = await self._run.budget.lease(1, self._plan.limit - draft.tokens)
        except BudgetExhausted:
            self._close(draft)
            return
        draft.turns += 1
        await self._batch([draft], lease)

    async def _stream(self, request: GenerateRequest, drafts: list[Draft]) -> None:
        """Take chunks until every sample has ended, the deadline passes or the draw is decided."""
        chunks = self._run.engine.generate(request)
        async with aclosing(chunks):  # pyright: ignore[reportArgumentType]
            stop = asyncio.create_task(self._watch(request.id))
            try:
                async for chunk in chunks:
                    self._take(drafts[chunk.index], chunk, counted=request)
                    if self._dropped(drafts[chunk.index], chunk):
                        await self._run.engine.abort(request.id, chunk.index)
            finally:
                stop.cancel()

    async def _watch(self, request_id: str) -> None:
        """Abort the request at the deadline or once the draw is decided; the stream then ends by itself."""
        deadline = self._run.budget.deadline
        left = (
            None
            if deadline is None
            else max(0.0, deadline - self._run.budget.started - self._run.budget.seconds)
        )
        try:
            async with asyncio.timeout(left):
                await self._decided.wait()
        except TimeoutError:
            self._run.budget.note("budget-seconds")
        await self._run.engine.abort(request_id)

    def _dropped(self, draft: Draft, chunk: Chunk) -> bool:
        """Whether this chunk is what a path that still runs is ended for."""
        if not self._plan.drop or draft.dropped or not chunk.logprobs:
            return False
        draft.dropped = self._plan.drop(draft.index, chunk.logprobs)
        return draft.dropped and not chunk.finish_reason and self._run.engine.caps.sample_abort

    def _take(self, draft: Draft, chunk: Chunk, counted: GenerateRequest) -> None:
        run, count = self._run, chunk.token_count
        draft.tokens += count
        draft.used += count
        draft.ids.extend(chunk.token_ids)
        draft.logprobs.extend(chunk.logprobs)
        if count or chunk.prompt_tokens or chunk.draft_accepted or chunk.draft_rejected:
            run.charge(
                self._plan.stage,
                Usage(
                    chunk.prompt_tokens,
                    chunk.cached_tokens,
                    count,
                    chunk.draft_accepted,
                    chunk.draft_rejected,
                ),
            )
        if chunk.text:
            draft.parts.append(chunk.text)
            run.emit(Delta(draft.node, chunk.text, run.budget.seconds))
        if run.halted():
            self._decided.set()
        if chunk.finish_reason == "error":
            raise EngineError(
                f"the engine failed on request {counted.id}: {chunk.stop_reason or 'no reason given'}"
            )
        if chunk.finish_reason:
            draft.finish, draft.stop_reason = chunk.finish_reason, chunk.stop_reason
            self._settle(draft)
            if draft.finish != "length" or draft.dropped or draft.tokens >= self._plan.limit:
                self._close(draft)

    def _open(self) -> Draft:
        plan, index = self._plan, len(self._drafts)
        node = self._run.open(
            plan.parent, f"path {index}", path=True, stage=plan.stage, prompt=plan.base, prefill=plan.prefill,
            live=plan.live,
        )  # fmt: skip
        draft = Draft(index, node)
        self._drafts.append(draft)
        return draft

    def _settle(self, draft: Draft) -> None:
        if draft.leased:
            self._run.budget.settle(draft.leased, draft.used, finished=draft.finish == "stop")
            draft.leased = 0

    def _close(self, draft: Draft) -> None:
        if draft.path:
            return
        plan, run = self._plan, self._run
        text = "".join(draft.parts)
        # An aborted path is a text cut short, which is what `length` says to a client.
        finish: FinishReason = "length" if draft.finish in (None, "abort", "length") else draft.finish
        answer = self._read(plan.prefill + text) if finish != "length" or plan.candidate else None
        draft.path = path = Path(
            draft.node, plan.base, plan.prefill + text, tuple(draft.ids), plan.prompt_ids, tuple(draft.logprobs),
            finish, draft.stop_reason, plan.prefill, draft.tokens, answer,
        )  # fmt: skip
        mean = path.mean_logprob if draft.logprobs else None
        run.emit(Sampled(draft.node, text, finish, draft.tokens, answer, mean, run.budget.seconds))
        self._done.append(path)
        if plan.until and not self._decided.is_set() and plan.until(list(self._done)):
            self._decided.set()


def continued(engine: Engine, path: Path, insert: str = "") -> tuple[int, ...]:
    """What a continuation of a path begins with: its tokens as they were drawn, then those of `insert`.

    Tokens that ended it without being part of its text (an end of sequence, a mark that was cut off) go. A text that
    ends inside a token is read anew, since then only the text says where the path ends.
    """
    drawn, ids = path.text[len(path.prefill) :], path.token_ids
    for end in range(len(ids), max(len(ids) - LONGEST_END, 0) - 1, -1):
        if engine.detokenize(ids[:end]) == drawn:
            first = len(engine.tokenize(""))  # a beginning of sequence, where the model has one
            return (*path.prompt_ids, *ids[:end], *(engine.tokenize(insert)[first:] if insert else ()))
    return tuple(engine.tokenize(path.prompt + path.text + insert))
