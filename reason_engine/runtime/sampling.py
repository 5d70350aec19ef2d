"""Draws n paths of one prompt through the budget: leases, continuation, deadline, early stop, clean-up.

One engine request carries as many samples as the first lease allows (normally all n). A path that reaches the end of
its lease before its own limit goes on with another lease as a request of its own, whose prompt is the tokens so far
(their prefix is cached). A path that `drop` finds wanting is aborted alone, while the others run; where the engine
cannot do that, it runs on. Whatever ends a draw (deadline, decision, cancellation), the engine is told to abort and the
tokens it had made by then are counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from reason_engine.errors import BudgetExhausted, EngineError
from reason_engine.runtime.run import Lease, Run
from reason_engine.runtime.trace import Delta, Opened, Sampled
from reason_engine.types import Chunk, Draw, FinishReason, GenerateRequest, Path, Prompt, Sampling, TokenLogprob, Usage


@dataclass(slots=True)
class PartialPath:
    """Sample `index` of a request while it grows. `finish` is None until its last chunk has come."""

    index: int = 0
    parts: list[str] = field(default_factory=list[str])
    ids: list[int] = field(default_factory=list[int])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    tokens: int = 0
    """Tokens generated for it, also on engines that report no ids."""
    prompt_tokens: int = 0
    """Of the request's prompt, on sample 0 alone, as `cached_tokens`."""
    cached_tokens: int = 0
    draft_accepted: int = 0
    draft_rejected: int = 0
    finish: FinishReason | None = None
    stop_reason: str | int | None = None

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.parts)

    @property
    def usage(self) -> Usage:
        """What it has cost so far."""
        return Usage(self.prompt_tokens, self.cached_tokens, self.tokens, self.draft_accepted, self.draft_rejected)

    def add(self, chunk: Chunk) -> None:
        """Take a chunk of this sample in."""
        self.tokens += chunk.token_count
        self.ids.extend(chunk.token_ids)
        self.logprobs.extend(chunk.logprobs)
        if chunk.text:
            self.parts.append(chunk.text)
        if chunk.finish_reason:
            self.finish, self.stop_reason = chunk.finish_reason, chunk.stop_reason
        self.prompt_tokens += chunk.prompt_tokens
        self.cached_tokens += chunk.cached_tokens
        self.draft_accepted += chunk.draft_accepted
        self.draft_rejected += chunk.draft_rejected


async def collect(stream: AsyncIterator[Chunk]) -> list[PartialPath]:
    """The samples of a whole stream of `Engine.generate`, by index."""
    found: dict[int, PartialPath] = {}
    async for chunk in stream:
        if chunk.index not in found:
            found[chunk.index] = PartialPath(chunk.index)
        found[chunk.index].add(chunk)
    return [found[index] for index in sorted(found)]


Drawn = TypeVar("Drawn")


@dataclass
class PathCache(Generic[Drawn]):
    """Paths that were drawn already, by their kind (the prompt and how it was sampled), in the order of drawing.

    Several readers share the paths; each reads every kind from its first path on and gets no path twice. Draws of one
    kind wait for each other, so that none is drawn twice.
    """

    kept: defaultdict[str, list[Drawn]] = field(default_factory=lambda: defaultdict(list))
    _locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _read: Counter[str] = field(default_factory=Counter[str])

    def reader(self) -> PathCache[Drawn]:
        """The same paths for somebody who has read none of them."""
        return PathCache(self.kept, self._locks)

    def take(self, kind: str, n: int) -> list[Drawn]:
        """Up to n kept paths that this reader has not had yet."""
        begin = self._read[kind]
        taken = self.kept[kind][begin : begin + n]
        self._read[kind] += len(taken)
        return taken

    def put(self, kind: str, paths: Sequence[Drawn]) -> None:
        """Keep what this reader has just drawn and had."""
        self.kept[kind].extend(paths)
        self._read[kind] = len(self.kept[kind])

    async def paths(self, kind: str, n: int, draw: Callable[[list[Drawn]], Awaitable[list[Drawn]]]) -> list[Drawn]:
        """N paths that this reader has not had; those that are not kept yet are drawn by `draw`, which is given those
        that are and may return fewer."""
        async with self._locks[kind]:
            taken = self.take(kind, n)
            if len(taken) == n:
                return taken
            new = await draw(taken)
            self.put(kind, new)
        return [*taken, *new]


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
    """A path of a draw while it grows: its node of the trace and its lease. `turns`: leases used up so far."""

    node: int = 0
    leased: int = 0
    used: int = 0
    turns: int = 0
    dropped: bool = False
    path: Path | None = None


class PathSampler:
    """Samples the paths of one request within the budget."""

    def __init__(self, run: Run, request: PathRequest) -> None:
        self._run, self._request, self._draw = run, request, request.draw
        self._limit = request.sampling.max_tokens
        self._open_paths: list[OpenPath] = []
        self._done: list[Path] = []
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
        async with asyncio.TaskGroup() as group:
            while len(self._open_paths) < granted and not self._decided.is_set():
                try:
                    lease = await self._run.budget.lease(granted - len(self._open_paths), self._limit)
                except BudgetExhausted as error:
                    refused = error
                    break
                group.create_task(self._run_batch([self._open() for _ in range(lease.paths)], lease))
        if refused and not self._open_paths:
            raise refused
        paths = [partial.path for partial in self._open_paths if partial.path]
        if self._request.candidate:
            self._run.candidates.extend(paths)
        return paths

    async def _run_batch(self, partials: list[OpenPath], lease: Lease) -> None:
        """Draw these paths as one request; those cut by their lease go on with another one."""
        asked, first = self._request, partials[0]
        for partial in partials:
            partial.leased, partial.used, partial.finish = lease.tokens, 0, None
        prompt = asked.prompt.ids if asked.by_ids else asked.prompt
        if first.turns:
            prompt = (*asked.prompt.ids, *first.ids)
        # A continuation draws with a seed of its own, so that it does not repeat the first lease's draws.
        seed = asked.sampling.seed + first.index + 1_000_003 * first.turns
        request = GenerateRequest(
            self._run.request_id(),
            prompt,
            len(partials),
            replace(asked.sampling, max_tokens=lease.tokens, seed=seed % 2**31),
            self._run.adapter,
            search=self._run.id,
        )
        try:
            await self._stream(request, partials)
        finally:
            for partial in partials:
                self._settle(partial)
        again: list[OpenPath] = []
        for partial in partials:
            cut = partial.dropped or self._decided.is_set()
            if partial.finish == "length" and partial.tokens < self._limit and not cut:
                again.append(partial)
            else:
                self._close(partial)
        if again and not self._run.engine.caps.continuation:
            self._run.budget.note("budget-tokens")
            for partial in again:
                self._close(partial)
        elif again:
            async with asyncio.TaskGroup() as group:
                for partial in again:
                    group.create_task(self._continue(partial))

    async def _continue(self, partial: OpenPath) -> None:
        try:
            lease = await self._run.budget.lease(1, self._limit - partial.tokens)
        except BudgetExhausted:
            self._close(partial)
            return
        partial.turns += 1
        await self._run_batch([partial], lease)

    async def _stream(self, request: GenerateRequest, partials: list[OpenPath]) -> None:
        """Take chunks until every sample has ended, the deadline passes or the draw is decided."""
        chunks = self._run.engine.generate(request)
        async with aclosing(chunks):  # pyright: ignore[reportArgumentType]
            stop = asyncio.create_task(self._watch(request.id))
            try:
                async for chunk in chunks:
                    self._take(partials[chunk.index], chunk, counted=request)
                    if self._dropped(partials[chunk.index], chunk):
                        await self._run.engine.abort(request.id, chunk.index)
            finally:
                stop.cancel()

    async def _watch(self, request_id: str) -> None:
        """Abort the request at the deadline or once the draw is decided; the stream then ends by itself."""
        left = self._run.budget.seconds_left
        try:
            async with asyncio.timeout(None if left is None else max(0.0, left)):
                await self._decided.wait()
        except TimeoutError:
            self._run.budget.note("budget-seconds")
        await self._run.engine.abort(request_id)

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
            self._settle(partial)
            if partial.finish != "length" or partial.dropped or partial.tokens >= self._limit:
                self._close(partial)

    def _open(self) -> OpenPath:
        asked, draw, index = self._request, self._draw, len(self._open_paths)
        opened = Opened(0, asked.node, f"path {index}", "path", draw.stage, asked.base, asked.prefill, draw.live)
        partial = OpenPath(index, node=self._run.open(opened))
        self._open_paths.append(partial)
        return partial

    def _settle(self, partial: OpenPath) -> None:
        if partial.leased:
            self._run.budget.settle(partial.leased, partial.used, finished=partial.finish == "stop")
            partial.leased = 0

    def _close(self, partial: OpenPath) -> None:
        if partial.path:
            return
        asked, run, text = self._request, self._run, partial.text
        # An aborted path is a text cut short, which is what `length` says to a client.
        finish: FinishReason = "length" if partial.finish in (None, "abort", "length") else partial.finish
        whole = asked.prefill + text
        read = finish != "length" or asked.candidate
        answer = run.read_answer(whole, tools=self._draw.final) if read else None
        partial.path = path = Path(
            partial.node, asked.base, whole, tuple(partial.ids), asked.prompt.ids, tuple(partial.logprobs),
            finish, partial.stop_reason, asked.prefill, partial.tokens, answer,
        )  # fmt: skip
        mean = path.mean_logprob if partial.logprobs else None
        run.emit(Sampled(partial.node, text, finish, partial.tokens, answer, mean, run.budget.seconds))
        self._done.append(path)
        until = self._draw.until
        if until and not self._decided.is_set() and until(list(self._done)):
            self._decided.set()
