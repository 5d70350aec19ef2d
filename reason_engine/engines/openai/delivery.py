"""One request delivered, whatever becomes of its endpoints: all its samples end, or it ends with an error.

A call that fails before anything came goes to another endpoint; samples that had begun go on there one by one
(`resume.py`). One endpoint alone is asked again after a pause. One at capacity is asked again when it said, as long as
the waits of a request stay within `max_wait`; a request's own deadline ends it from outside. What no endpoint can do
anything about (a wrong request) is raised at once.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from reason_engine.engines.openai.exchange import Exchange
from reason_engine.engines.openai.fleet import Fleet
from reason_engine.engines.openai.resume import Diverged, Sample, remaining
from reason_engine.engines.openai.upstream import Upstream
from reason_engine.engines.openai.wire.refusals import refused_key
from reason_engine.engines.openai.wire.stream import ChunkStream
from reason_engine.errors import EngineBusy, EngineError, RequestError, UnknownModel, first_error
from reason_engine.types import Chunk, GenerateRequest

log = logging.getLogger("reason_engine.engines.openai")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0


@dataclass(slots=True)
class Attempts:
    """What was tried for one call."""

    failures: int = 0
    waited: float = 0.0
    avoid: list[Upstream] = field(default_factory=list[Upstream])


class Delivery:
    """Puts the chunks of all samples of one request into its stream. Failures go through the stream too."""

    def __init__(self, request: GenerateRequest, stream: ChunkStream, fleet: Fleet, exchange: Exchange) -> None:
        self._request, self._stream, self._fleet = request, stream, fleet
        self._exchange, self._config = exchange, fleet.config
        self._samples = [Sample() for _ in range(request.n)]
        self._prompt_told = False
        self._lost = 0

    async def run(self) -> None:
        n, most = self._request.n, self._fleet.findings.abilities.most_samples or self._request.n
        try:
            async with asyncio.TaskGroup() as group:
                for first in range(0, n, most):
                    group.create_task(self._draw(first, min(most, n - first)))
        except Exception as error:  # a boundary: the stream's reader is told
            cause = first_error(error)
            assert isinstance(cause, Exception)
            self._stream.put(cause)

    async def _draw(self, first: int, count: int) -> None:
        """Draw samples in one call; what it leaves open one by one."""
        tried, answered = Attempts(), False
        while not answered:
            upstream = await self._turn(tried, count)
            try:
                await self._call(upstream, first, count)
                answered = True
            except Diverged:
                self._lose(first)
                return
            except UnknownModel as error:
                if self._request.adapter or len(self._fleet.upstreams) == 1:
                    raise
                self._note(upstream, EngineError(f"it no longer has the model: {error}"), tried)
            except RequestError as error:
                if count == 1 or not _about_n(error):
                    raise
                answered = True
            except EngineError as error:
                self._note(upstream, error, tried)
                if count > 1 and any(sample.text or sample.tokens or sample.done for sample in self._of(first, count)):
                    break
            if count == 1 and self._samples[first].done:
                return
        left = [first + place for place, sample in enumerate(self._of(first, count)) if not sample.done]
        if not left:
            return
        if answered:
            self._fleet.findings.learn(most_samples=1)
        async with asyncio.TaskGroup() as group:
            for index in left:
                group.create_task(self._draw(index, 1))

    def _of(self, first: int, count: int) -> list[Sample]:
        return self._samples[first : first + count]

    async def _turn(self, tried: Attempts, count: int) -> Upstream:
        """The endpoint whose turn it is, once it may be asked. Raises EngineBusy where that would take too long."""
        while True:
            upstream = self._fleet.balance.pick(self._request, count, tried.avoid)
            pause = 0.0
            if upstream.busy:
                pause = upstream.rest
                if tried.waited + pause > self._config.max_wait and isinstance(upstream.error, EngineBusy):
                    raise EngineBusy(str(upstream.error), pause=pause) from upstream.error
            elif upstream in tried.avoid:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tried.failures - 1))
                tried.avoid.clear()
            if not pause:
                return upstream
            await self._fleet.sleep(pause)
            tried.waited += pause
            if not upstream.busy:
                return upstream

    async def _call(self, upstream: Upstream, first: int, count: int) -> None:
        sample = self._samples[first]
        if count == 1:
            asked = remaining(self._request, first, sample, prefills=self._exchange.begun is not None)
            if sample.tokens >= self._request.sampling.max_tokens:
                self._show(Chunk(first, finish_reason="length"))
                return
        else:
            seed = self._request.sampling.seed + first
            asked = replace(self._request, n=count, sampling=replace(self._request.sampling, seed=seed))
        carried = count == 1 and sample.thinks(self._exchange.info) and sample.replay is None
        with self._fleet.occupied(upstream, count):
            await self._fleet.check(upstream)
            async with aclosing(self._exchange.chunks(upstream, asked, first, carried=carried)) as chunks:
                async for chunk in chunks:
                    self._take(chunk)
        if not any(one.done for one in self._of(first, count)):
            raise EngineError("the endpoint answered other samples than it was asked for")
        upstream.answered()

    def _take(self, chunk: Chunk) -> None:
        if not 0 <= chunk.index < len(self._samples) or self._samples[chunk.index].done:
            return
        replay = self._samples[chunk.index].replay
        rest = replay.rest(chunk) if replay else chunk
        if rest is not None:
            self._show(rest)

    def _show(self, chunk: Chunk) -> None:
        if chunk.prompt_tokens:
            if self._prompt_told:
                chunk = replace(chunk, prompt_tokens=0, cached_tokens=0)
            self._prompt_told = True
        self._samples[chunk.index].add(chunk)
        self._stream.put(chunk)

    def _note(self, upstream: Upstream, error: EngineError, tried: Attempts) -> None:
        """Remember a failure. Raises it where nothing is left to try."""
        if isinstance(error, EngineBusy):
            upstream.full(error)
            if not self._config.max_wait and not any(one.usable for one in self._fleet.upstreams):
                raise error
            return
        upstream.failed(error)
        tried.failures += 1
        others = len(self._fleet.upstreams) - 1
        if tried.failures > max(self._config.max_retries, others) or (refused_key(error) and not others):
            raise error
        tried.avoid.append(upstream)
        log.warning("%s: %s; the request goes on elsewhere", upstream.name, error)

    def _lose(self, index: int) -> None:
        """A sample that can be neither continued nor drawn again ends as it is, one among others. Raises EngineError
        where it was the only one, or the last."""
        sample, self._lost = self._samples[index], self._lost + 1
        told = f"an endpoint broke off after {sample.tokens} tokens, which no other one could go on with"
        if self._lost == len(self._samples):
            raise EngineError(told)
        log.warning("sample %d of %s: %s", index, self._request.id, told)
        sample.replay = None
        self._show(Chunk(index, finish_reason="abort"))


def _about_n(error: RequestError) -> bool:
    """Whether it refuses several samples in one call; llama.cpp's server calls their number `n_cmpl`."""
    return error.param == "n" or "'n'" in error.message or "n_cmpl" in error.message
