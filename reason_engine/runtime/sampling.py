"""Draws n paths of one prompt through the budget: leases, continuation, deadline, early stop, clean-up.

One engine request carries as many samples as the first lease allows (normally all n). A path that reaches the end of
its lease before its own limit goes on with another lease as a request of its own, whose prompt is the tokens so far
(their prefix is cached). A path that `drop` finds wanting is aborted alone, while the others run; where the engine
cannot do that, it runs on. Whatever ends a draw (deadline, decision, cancellation), the engine is told to abort and the
tokens it had made by then are counted.

A path that is to be an answer keeps a few tokens of its first lease back: where it is cut, or ends without a value, it
is asked once more (`forcing`). Its deadline is earlier by the time that this takes. Answers that have to wait for those
before them, for rows of the engine or for tokens, are left out once one of the usual length would not end in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal

from reason_engine.answers import Reading
from reason_engine.errors import BudgetExhausted, EngineError
from reason_engine.runtime.answering import CREDIBLE, FEWEST, FORCED, read_path
from reason_engine.runtime.budget import Lease
from reason_engine.runtime.draw_clock import DrawClock
from reason_engine.runtime.drawn import PartialPath, PathCache
from reason_engine.runtime.forcing import force
from reason_engine.runtime.run import Run
from reason_engine.runtime.trace import Delta, Opened, Sampled
from reason_engine.types import Chunk, Draw, FinishReason, GenerateRequest, Path, Prompt, Sampling, Usage


@dataclass(frozen=True, slots=True)
class PathRequest:
    """What to draw. `prompt` is sent, as its tokens alone if `by_ids`; `base` is the prompt without `prefill`, which
    the path's text begins with. `sampling.max_tokens` is the most tokens a path may have, over all its leases; `node`
    the node of the trace that the paths stand below; `candidate`: a run that is cut may end with one of them."""

    prompt: Prompt
    base: str
    prefill: str
    draw: Draw
    sampling: Sampling
    node: int
    candidate: bool = True
    by_ids: bool = False
    force: bool = False
    """Whether a path without an answer is asked for one once more."""


def alternatives(most: int, *read: int | None) -> int | None:
    """Alternatives to record at each token: the most that anybody reads, as far as an engine that tells `most` can."""
    wanted = max((k for k in read if k is not None), default=None)
    if wanted is None:
        return 0 if most >= 0 else None
    return min(wanted, max(most, 0))


async def cached_paths(run: Run, request: PathRequest, cache: PathCache[Path] | None = None) -> list[Path]:
    """The paths of a request, those in the cache first. Raises BudgetExhausted if there is not one."""
    if cache is None:
        return await PathSampler(run, request).run()
    draw = request.draw

    async def rest(taken: list[Path]) -> list[Path]:
        until = draw.until
        if until and taken and until(list(taken)):
            return []

        def whole(new: list[Path]) -> bool:
            return until is not None and until([*taken, *new])

        more = replace(draw, n=draw.n - len(taken), until=until and whole)
        return await PathSampler(run, replace(request, draw=more)).run()

    return await cache.paths(repr((request.prompt, replace(request.sampling, seed=0))), draw.n, rest)


@dataclass(slots=True)
class OpenPath(PartialPath):
    """A path of a draw while it grows: its node of the trace and its lease. `turns`: leases used up so far; `reserve`:
    tokens of the lease that are kept for a forced answer."""

    node: int = 0
    leased: int = 0
    reserve: int = 0
    used: int = 0
    turns: int = 0
    dropped: bool = False
    left_out: bool = False
    """Not begun, for want of time."""
    weight: float | None = None
    """Of its forced answer, once it was asked for one."""
    path: Path | None = None


class PathSampler:
    """Samples the paths of one request within the budget."""

    def __init__(self, run: Run, request: PathRequest) -> None:
        self._run, self._request, self._draw = run, request, request.draw
        self._limit = request.sampling.max_tokens
        self._reserve = min(FORCED, self._limit // 4) if request.force else 0
        self._reserve = self._reserve if self._reserve >= FEWEST else 0
        self._open_paths: list[OpenPath] = []
        self._done: list[Path] = []
        whole = request.draw.final and request.candidate
        self._clock = DrawClock(run.budget, run.forecast, whole=whole, reserve=self._reserve)
        self._decided = asyncio.Event()

    async def run(self) -> list[Path]:
        """The paths in index order; fewer than n only where the budget ran out.

        Raises BudgetExhausted if not one path could be started.
        """
        refused: BudgetExhausted | None = None
        if self._run.halted():
            raise BudgetExhausted("cancelled")
        granted = self._run.budget.admit(self._draw.n)
        self._run.samples += granted
        try:
            async with asyncio.TaskGroup() as group:
                while len(self._open_paths) < granted and not self._decided.is_set():
                    missing = granted - len(self._open_paths)
                    try:
                        lease = await self._run.budget.lease(missing, self._limit)
                    except BudgetExhausted as error:
                        refused = error
                        break
                    if self._too_late():
                        self._run.budget.settle(lease.paths * lease.tokens, 0)
                        self._leave_out(missing)
                        break
                    reserve = min(self._reserve, lease.tokens // 4)
                    group.create_task(self._run_batch([self._open(reserve) for _ in range(lease.paths)], lease))
        finally:
            # A run that is ended after its deadline has what its paths had by then, though the draw is not over.
            if self._run.budget.overdue:
                self._decided.set()
                for partial in self._open_paths:
                    self._close(partial)
            paths = [partial.path for partial in self._open_paths if partial.path and not partial.left_out]
            if self._request.candidate:
                self._run.keep(paths, final=self._draw.final)
                self._clock.over(self._counts, len(paths))
        if refused and not self._open_paths:
            raise refused
        return paths

    async def _run_batch(self, partials: list[OpenPath], lease: Lease) -> None:
        """Draw these paths as one request; those cut by their lease go on with another one."""
        asked, first = self._request, partials[0]
        for partial in partials:
            # What a path of several turns keeps back is of its first lease.
            partial.leased, partial.used, partial.finish = lease.tokens + (partial.turns and partial.reserve), 0, None
        prompt = asked.prompt.ids if asked.by_ids else asked.prompt
        if first.turns:
            prompt = (*asked.prompt.ids, *first.ids)
        # A continuation draws with a seed of its own, so that it does not repeat the first lease's draws.
        seed = asked.sampling.seed + first.index + 1_000_003 * first.turns
        request = GenerateRequest(
            self._run.request_id(),
            prompt,
            len(partials),
            replace(asked.sampling, max_tokens=first.leased - first.reserve, seed=seed % 2**31),
            self._run.adapter,
            search=self._run.id,
            interval=1 if self._draw.live or self._draw.drop else TOGETHER,
        )
        try:
            await self._stream(request, partials)
        except BaseException:
            for partial in partials:
                self._settle(partial)
            raise
        for partial in partials:
            self._settle(partial, keep=partial.reserve if self._rest(partial) else 0)
        rest = [(partial, self._rest(partial)) for partial in partials if not partial.path]
        async with asyncio.TaskGroup() as group:
            for partial, what in rest:
                if what == "more":
                    group.create_task(self._continue(partial))
                elif what == "ask":
                    group.create_task(self._ask(partial))
                else:
                    self._close(partial)

    def _rest(self, partial: OpenPath) -> Literal["more", "ask"] | None:
        """What is left to do for a path whose request has ended: go on, or ask it for its answer."""
        if partial.path or partial.dropped or self._decided.is_set():
            return None
        if partial.finish == "length" and partial.tokens < self._limit - partial.reserve:
            if self._run.engine.caps.continuation:
                return "more"
            self._run.budget.note("budget-tokens")
        ended = partial.finish in ("stop", "length", "abort", None)
        return "ask" if ended and partial.reserve and self._answer(partial) is None else None

    async def _continue(self, partial: OpenPath) -> None:
        try:
            lease = await self._run.budget.lease(
                1, self._limit - partial.reserve - partial.tokens, kept=partial.reserve
            )
        except BudgetExhausted:
            await self._ask(partial)
            return
        partial.turns += 1
        await self._run_batch([partial], lease)

    async def _ask(self, partial: OpenPath) -> None:
        """Ask a path once more for its answer, within what it kept back, and close it."""
        run, asked = self._run, self._request
        try:
            if partial.reserve and not run.budget.overdue and not run.halted():
                sampling = replace(asked.sampling, max_tokens=partial.reserve, seed=asked.sampling.seed + partial.index)
                path = Path(
                    partial.node, asked.base, asked.prefill + partial.text, tuple(partial.ids), asked.prompt.ids,
                    prefill=asked.prefill,
                )  # fmt: skip
                if forced := await force(run, path, sampling, self._draw.stage):
                    partial.used += forced.tokens
                    partial.tokens += forced.tokens
                    partial.weight = forced.weight
                    partial.logprobs.extend(forced.logprobs)
                    partial.parts.append(forced.given + forced.text)
                    run.emit(Delta(partial.node, partial.parts[-1], run.budget.seconds))
        finally:
            self._settle(partial)
        self._close(partial)

    async def _stream(self, request: GenerateRequest, partials: list[OpenPath]) -> None:
        """Take chunks until every sample has ended, the deadline passes or the draw is decided. An engine that takes
        long to hear of the deadline is left there, so that the run can make an answer of what its paths have."""
        chunks, left = self._run.engine.generate(request), self._run.budget.seconds_left
        limit = asyncio.timeout(None if left is None else max(0.0, left) + PATIENCE)
        try:
            async with limit:
                await self._read(chunks, request, partials)
        except TimeoutError:
            if not limit.expired():
                raise
            self._run.budget.note("budget-seconds")

    async def _read(self, chunks: AsyncIterator[Chunk], request: GenerateRequest, partials: list[OpenPath]) -> None:
        async with aclosing(chunks):  # pyright: ignore[reportArgumentType]
            stop = asyncio.create_task(self._watch(request.id))
            try:
                async for chunk in chunks:
                    self._take(partials[chunk.index], chunk, counted=request)
                    if self._dropped(partials[chunk.index], chunk):
                        await self._run.engine.abort(request.id, chunk.index)
                    for place in self._hopeless(partials, chunk):
                        await self._run.engine.abort(request.id, place)
            finally:
                stop.cancel()

    async def _watch(self, request_id: str) -> None:
        """Abort the request at the deadline or once the draw is decided; the stream then ends by itself."""
        while not self._decided.is_set():
            left = self._clock.seconds(self._counts)
            if left is not None and left <= 0:
                self._run.budget.note("budget-seconds")
                break
            # How long forced answers take is known better later on.
            pause = left if left is None or not self._reserve else max(left / 2, SHORTEST_WAIT)
            try:
                async with asyncio.timeout(pause):
                    await self._decided.wait()
            except TimeoutError:
                continue
        await self._run.engine.abort(request_id)

    @property
    def _counts(self) -> list[int]:
        return [partial.tokens for partial in self._open_paths]

    def _too_late(self) -> bool:
        rows = sum(not partial.path and partial.tokens > 0 for partial in self._open_paths)
        return self._clock.too_late(self._done, self._counts, rows)

    def _hopeless(self, partials: list[OpenPath], chunk: Chunk) -> list[int]:
        """Those of these that wait for a row that this chunk's end may free, too late."""
        if not chunk.finish_reason or not self._run.engine.caps.sample_abort:
            return []
        waiting = [i for i, partial in enumerate(partials) if not (partial.path or partial.tokens or partial.dropped)]
        if not waiting or not self._too_late():
            return []
        for place in waiting:
            partials[place].dropped = partials[place].left_out = True
        self._leave_out(len(waiting))
        return waiting

    def _leave_out(self, paths: int) -> None:
        self._run.samples -= paths
        self._run.left_out += paths
        self._run.budget.give_back(paths)

    def _dropped(self, partial: OpenPath, chunk: Chunk) -> bool:
        """Whether this chunk is what a path that still runs is ended for."""
        if not self._draw.drop or partial.dropped or not chunk.logprobs:
            return False
        partial.dropped = self._draw.drop(partial.index, chunk.logprobs)
        return partial.dropped and not chunk.finish_reason and self._run.engine.caps.sample_abort

    def _take(self, partial: OpenPath, chunk: Chunk, counted: GenerateRequest) -> None:
        run, count = self._run, chunk.token_count
        partial.add(chunk)
        partial.used += count
        if count and (chunk.finish_reason or not self._clock.begun):
            self._clock.gained(self._counts, ended=chunk.finish_reason is not None)
        if count or chunk.prompt_tokens or chunk.draft_accepted or chunk.draft_rejected:
            drafted = chunk.draft_accepted, chunk.draft_rejected
            run.charge(self._draw.stage, Usage(chunk.prompt_tokens, chunk.cached_tokens, count, *drafted))
        if chunk.text:
            run.emit(Delta(partial.node, chunk.text, run.budget.seconds))
        if run.halted():
            self._decided.set()
        if chunk.finish_reason == "error":
            raise EngineError(f"the engine failed on request {counted.id}: {chunk.stop_reason or 'no reason given'}")
        if chunk.finish_reason:
            rest = self._rest(partial)
            self._settle(partial, keep=partial.reserve if rest else 0)
            if rest is None:
                self._close(partial)

    def _open(self, reserve: int) -> OpenPath:
        asked, draw, index = self._request, self._draw, len(self._open_paths)
        opened = Opened(0, asked.node, f"path {index}", "path", draw.stage, asked.base, asked.prefill, draw.live)
        kept = reserve if reserve >= FEWEST else 0
        partial = OpenPath(index, node=self._run.open(opened), reserve=kept)
        self._open_paths.append(partial)
        return partial

    def _settle(self, partial: OpenPath, keep: int = 0) -> None:
        """Give back what a path did not use, but for `keep` tokens."""
        if partial.leased > keep or partial.used:
            self._run.budget.settle(partial.leased - keep, partial.used, finished=partial.finish == "stop")
            partial.leased, partial.used = keep, 0

    def _answer(self, partial: OpenPath) -> Reading | None:
        asked, cut = self._request, partial.finish != "stop" and partial.finish != "tool_calls"
        if cut and not asked.candidate:
            return None
        text = asked.prefill + partial.text
        return read_path(self._run, text, asked.base, tools=self._draw.final, cut=cut and partial.weight is None)

    def _close(self, partial: OpenPath) -> None:
        if partial.path:
            return
        asked, run, text, weight = self._request, self._run, partial.text, partial.weight
        # An aborted path is a text cut short, which is what `length` says to a client.
        finish: FinishReason = "length" if partial.finish in (None, "abort", "length") else partial.finish
        found = self._answer(partial)
        cut = finish == "length" and not partial.left_out and (found is None or weight is not None)
        # Alone it is the best there is; among others it is no vote unless the model means it.
        if weight is not None and weight < CREDIBLE and (self._draw.n > 1 or self._draw.after):
            found = None
        if found and weight is not None:
            finish = "stop"
        answer, strength = (found.value, "forced" if weight is not None else found.strength) if found else (None, None)
        partial.path = path = Path(
            partial.node, asked.base, asked.prefill + text, tuple(partial.ids), asked.prompt.ids,
            tuple(partial.logprobs), finish, partial.stop_reason, asked.prefill, partial.tokens, answer, strength,
            1.0 if weight is None else weight, cut, run.engine.info.think_end,
        )  # fmt: skip
        mean = path.mean_logprob if partial.logprobs else None
        read = answer, mean, path.strength, path.weight, cut
        run.emit(Sampled(partial.node, text, finish, partial.tokens, *read, run.budget.seconds))
        if partial.left_out:
            return
        self._done.append(path)
        until = self._draw.until
        if until and not self._decided.is_set() and until(list(self._done)):
            self._decided.set()


TOGETHER = 8
"""Tokens that a path may gain at a time where it is neither shown as it grows nor ended by a rule for its tokens."""
PATIENCE = 0.4
"""Seconds after the deadline that an engine has to end what it draws; less than the grace of a run (`solve`)."""
SHORTEST_WAIT = 0.05
"""Seconds between two looks at the deadline."""
