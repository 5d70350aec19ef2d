"""The engine that comes with the package: continuous batching of a decoder in torch, in a process of its own.

This file and what it imports never load torch; the worker does. `inline=True` runs the worker in a thread instead, for
tests, one question at a time and rollouts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import SecretStr

from reason_engine.contracts import Capabilities, Health
from reason_engine.engines import check_adapter, engines
from reason_engine.engines.chat import AS_FOUND, ChatFormat, ChatTextMethods, Parsers
from reason_engine.engines.checkpoint.adapter_files import read_adapter
from reason_engine.engines.checkpoint.checkpoint import find_checkpoint, name_of
from reason_engine.engines.embedded import admission, messages
from reason_engine.engines.embedded.messages import DraftMethod, FromWorker, Ready, StepOutput, Weights, WorkerConfig
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.engines.embedded.score_inputs import ScoreInputs
from reason_engine.engines.embedded.transport import ProcessTransport, ThreadTransport, Transport
from reason_engine.engines.rewards.embedding import SERVED, choose_embedder
from reason_engine.engines.rewards.endpoints import Endpoints
from reason_engine.engines.rewards.folders import bundled_heads, read_reward
from reason_engine.engines.rewards.formats import RewardKind
from reason_engine.engines.rewards.naming import choose_reward, is_url
from reason_engine.errors import EngineDead, ReasonError, RequestError
from reason_engine.model_info import ModelInfo
from reason_engine.profile import companion
from reason_engine.types import Aggregate, Choice, ChoiceRequest, Chunk, GenerateRequest, ScoreRequest, Scores

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

PATIENCE = 0.2
"""Seconds that whoever leaves a request early waits for the step that is under way."""


@engines.register("embedded")
class Embedded(ChatTextMethods):
    """Serves one safetensors checkpoint or GGUF file (Llama, Mistral, Qwen2, Qwen3) on CPU or CUDA.

    `name` is what the model is called (default: as its folder or file). `context` lowers the model's limit. `dtype`,
    `device` and `threads` are chosen by size and machine unless given. `weights`: as they are stored, in 8-bit codes
    (`int8`), or whichever suits model and machine (`auto`). `max_rows` samples run at once; `cache_bytes`
    bounds their keys and values, `prefix_bytes` those kept for reuse (0: by the machine's memory). `rewards`: reward
    models by name, folders or URLs, besides the heads that ship with the model. `draft`: how requests draft that leave
    it to the engine. `parsers`: what the operator named of the chat format.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        inline: bool = False,
        name: str | None = None,
        context: int = 0,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        weights: Weights = "full",
        device: str = "auto",
        threads: int = 0,
        max_rows: int = 64,
        cache_bytes: int = 0,
        prefix_bytes: int = 0,
        rewards: Mapping[str, str] | None = None,
        reward_keys: Mapping[str, SecretStr] | None = None,
        draft: DraftMethod = "none",
        parsers: Parsers = AS_FOUND,
    ) -> None:
        """Read and check the model's files. Raises ModelLoadError."""
        checkpoint = find_checkpoint(str(path))
        model = checkpoint.path
        shape = read_shape(model)
        checkpoint.check()
        self._format = ChatFormat.load(model, parsers)
        self._vocab = shape.vocab
        limit = min(context, shape.context) if context else shape.context
        given = {**bundled_heads(companion(model)), **(rewards or {})}
        urls = {name: url for name, url in given.items() if is_url(url)}
        files = {name: read_reward(name, path) for name, path in given.items() if name not in urls}
        self._score_inputs = ScoreInputs(files, self._format, limit, shape.vocab)
        self._endpoints = Endpoints(urls, keys=reward_keys)
        self._rewards: dict[str, RewardKind] = {**self._score_inputs.kinds, **self._endpoints.kinds}
        self._config = WorkerConfig(
            str(model), dtype, device, threads, max_rows, cache_bytes, prefix_bytes, limit,
            rewards=tuple(files.values()), draft=draft, weights=weights, shown=self._format.shown,
        )  # fmt: skip
        fingerprint = f"embedded-{checkpoint.fingerprint}"
        self.info = self._format.info(name or name_of(model), str(model), limit, fingerprint)
        embeds = (SERVED, self.info.name, *self._endpoints.embeds)
        aggregates: dict[str, Aggregate] = {**self._score_inputs.aggregates, **self._endpoints.aggregates}
        self.caps = Capabilities(
            logprobs=20, token_ids=True, continuation=True, choose=True, score=bool(self._rewards),
            rewards=tuple(self._rewards.items()),
            aggregates=tuple(aggregates.items()), embeds=embeds, adapters=True, structured=True,
            drafting=("none", "sam", "ngram"), exact_budget=True, sample_abort=True,
        )  # fmt: skip
        # A search asks for the same few options at each of its states.
        self._option_ids = lru_cache(256)(self._tokenize_option)
        self.chosen: Ready | None = None
        """Threads, precision and device, once started."""
        self._transport: Transport = ThreadTransport() if inline else ProcessTransport()
        self._streams: dict[str, SampleStream] = {}
        self._ending = set[asyncio.Task[None]]()
        self._queries: dict[str, asyncio.Future[Choice | Scores | None]] = {}
        self._numbers = count()
        self._adapters: list[str] = []
        self._replaced = 0
        self._ready: asyncio.Future[Ready] | None = None
        self._dead: EngineDead | None = None
        self._closing = False
        self._last = StepOutput([], [], [], 0, 0, 0)

    async def start(self) -> None:
        """Load the model. Raises ModelLoadError, or EngineDead where the worker ends while it loads."""
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_future()
            await self._transport.open(self._config, self._receive)
        self.chosen = chosen = await asyncio.shield(self._ready)
        self.info = self._told(chosen)

    def _told(self, chosen: Ready) -> ModelInfo:
        """What is served, with the precision that it turned out to be served in."""
        for note in chosen.notes:
            log.warning("%s: %s", self.info.name, note)
        log.info("%s: %s, %s, %d threads", self.info.name, chosen.precision, chosen.device, chosen.threads)
        engine = "embedded-int8-" if chosen.precision.startswith("int8") else "embedded-"
        fingerprint = self.info.fingerprint.replace("embedded-", engine, 1)
        return replace(self.info, precision=chosen.precision, fingerprint=fingerprint)

    async def close(self) -> None:
        """End the worker; open requests fail with EngineDead."""
        self._closing = True
        await self._transport.close()
        await self._endpoints.close()
        self._end(EngineDead("the engine was closed"))

    async def health(self) -> Health:
        ready = self._ready is not None and self._ready.done() and self._dead is None and not self._closing
        alive = sum(stream.left for stream in self._streams.values())
        waiting = min(self._last.waiting, alive)
        detail, failures = str(self._dead or ""), self._last.draft_failures
        return Health(ready, self._dead is None, alive - waiting, waiting, self._last.generated, detail, failures)

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Stream chunks of all samples. Raises RequestError kinds before anything runs, EngineDead later."""
        ids = await admission.prompt_ids(self._format, request.prompt)
        admission.check_prompt(ids, self.info.context, self._vocab)
        admission.check(request, self._vocab, self.caps, self._streams)
        check_adapter(request.adapter, self._adapters)
        self._check_alive()
        stream = self._streams[request.id] = SampleStream(request.n)
        self._transport.send(
            messages.Generate(
                request.id, ids, request.n, request.sampling, request.adapter, request.priority, request.search
            )
        )
        try:
            while not stream.over:
                for chunk in await stream.take():
                    yield chunk
        finally:
            await self._finish(request.id, stream)

    async def abort(self, request_id: str, index: int | None = None) -> None:
        if request_id in self._streams:
            self._transport.send(messages.Abort(request_id, index))

    async def choose(self, request: ChoiceRequest) -> Choice:
        """Probabilities of the options. No token is generated for it."""
        ids = await admission.prompt_ids(self._format, request.prompt)
        options = tuple(map(self._option_ids, request.options))
        longest = max(map(len, options), default=0)
        admission.check_prompt(ids, self.info.context - longest + 1, self._vocab)
        if not options or not all(options):
            raise RequestError("options must be one or more texts that are not empty", param="options")
        check_adapter(request.adapter, self._adapters)
        made = await self._ask(messages.Choose(self._new_id("choice"), ids, options, request.adapter))
        assert isinstance(made, Choice)
        return made

    def _tokenize_option(self, option: str) -> tuple[int, ...]:
        return tuple(self._format.tokenize_bare(option))

    async def score(self, request: ScoreRequest) -> Scores:
        """By a head, an endpoint, or for `embed` the served model. Nothing is generated.

        Raises RequestError kinds, EngineError."""
        if request.task == "embed":
            remote = choose_embedder(request, self.caps.embeds) in self._endpoints.embeds
        else:
            known = self._rewards
            remote = bool(known) and choose_reward(request, known) in self._endpoints.kinds
        if remote:
            return await self._endpoints.score(request)
        made = await self._ask(await self._score_inputs.message(self._new_id("score"), request))
        assert isinstance(made, Scores)
        return made

    async def load_adapter(self, name: str, path: str) -> None:
        """Load an adapter's folder under a name; a loaded one of that name is replaced. Raises ModelLoadError."""
        read_adapter(path)
        await self._ask(messages.LoadAdapter(self._new_id("adapter"), name, path))
        if name not in self._adapters:
            self._adapters.append(name)

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter; requests that run with it finish. Raises UnknownModel."""
        check_adapter(name, self._adapters)
        await self._ask(messages.UnloadAdapter(self._new_id("adapter"), name))
        self._adapters.remove(name)

    def adapters(self) -> tuple[str, ...]:
        return tuple(self._adapters)

    async def draft_from(self, texts: Sequence[Sequence[int]]) -> None:
        """Texts that `sam` drafts from besides what a search was asked and has written, in place of those before.

        Returns once they are indexed, which is done while nothing runs.
        """
        await self._ask(messages.DraftFrom(self._new_id("texts"), tuple(map(tuple, texts))))

    async def take_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with other weights of the same shapes, by their names in the checkpoint; a copy of them is taken.

        No prefix of the old ones is found again, and the fingerprint tells how often it was done.
        Raises RequestError while anything runs or adapters are loaded, ModelLoadError where the tensors do not fit.
        """
        copied = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        await self._ask(messages.ReplaceWeights(self._new_id("weights"), copied))
        self._replaced += 1
        first = self.info.fingerprint.partition("+")[0]
        self.info = replace(self.info, fingerprint=f"{first}+{self._replaced}")

    async def _finish(self, request_id: str, stream: SampleStream) -> None:
        """Leave only when nothing of the request runs any more; a step that takes longer than PATIENCE is waited for
        beside, so that whoever leaves at a deadline keeps what was drawn."""
        if not stream.left:
            del self._streams[request_id]
            return
        self._transport.send(messages.Abort(request_id))
        ending = asyncio.create_task(self._drain(request_id, stream))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        await asyncio.wait((ending,), timeout=PATIENCE)

    async def _drain(self, request_id: str, stream: SampleStream) -> None:
        try:
            while stream.left:
                await stream.take()
        except ReasonError:
            pass  # whoever read the stream has been told, or has left
        finally:
            del self._streams[request_id]

    def _new_id(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"

    async def _ask(self, query: messages.Query) -> Choice | Scores | None:
        self._check_alive()
        future = self._queries[query.id] = asyncio.get_running_loop().create_future()
        self._transport.send(query)
        try:
            return await future
        finally:
            del self._queries[query.id]
            if future.cancelled() and isinstance(query, messages.Choose | messages.ScoreTexts):
                self._transport.send(messages.Abort(query.id))

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise self._dead
        if self._ready is None or not self._ready.done() or self._closing:
            raise EngineDead("the engine is not started")

    def _receive(self, message: FromWorker | None) -> None:
        assert self._ready is not None
        match message:
            case StepOutput():
                self._last = message
                for delta in message.deltas:
                    if (stream := self._streams.get(delta.request)) is not None:
                        stream.put(delta)
                for identity, value in message.results:
                    if (future := self._queries.get(identity)) is not None and not future.done():
                        future.set_result(value)
                for identity, error in message.errors:
                    self._fail(identity, error)
            case Ready():
                self._ready.set_result(message)
            case messages.Failed():
                if not self._ready.done():
                    self._ready.set_exception(message.error)
                self._end(EngineDead(f"the engine failed: {message.error}"))
            case None:
                self._end(EngineDead("the engine's worker has ended"))

    def _fail(self, identity: str, error: Exception) -> None:
        if (stream := self._streams.get(identity)) is not None:
            stream.fail(error)
        elif (future := self._queries.get(identity)) is not None and not future.done():
            future.set_exception(error)

    def _end(self, error: EngineDead) -> None:
        if self._dead is not None:
            return
        self._dead = error
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)
        for identity in [*self._streams, *self._queries]:
            self._fail(identity, error)


class SampleStream:
    """The front's end of one request: open until each of its `n` samples has had its last delta, or it failed."""

    def __init__(self, n: int) -> None:
        self.left = n
        self._held: dict[int, list[messages.Delta]] = {}
        self._changed = asyncio.Event()
        self._error: Exception | None = None

    def put(self, delta: messages.Delta) -> None:
        self._held.setdefault(delta.index, []).append(delta)
        if delta.finish is not None:
            self.left -= 1
        self._changed.set()

    def fail(self, error: Exception) -> None:
        self._error, self.left = error, 0
        self._changed.set()

    async def take(self) -> list[Chunk]:
        """The chunks that have come, at least one. Raises the error that ended the stream, after what came before."""
        await self._changed.wait()
        self._changed.clear()
        held, self._held = self._held, {}
        if not held and self._error is not None:
            raise self._error
        if self._error is not None:
            self._changed.set()
        gained = (messages.join(deltas) for deltas in held.values())
        return [Chunk(one.index, one.text, one.ids, len(one.ids), *one[4:]) for one in gained]

    @property
    def over(self) -> bool:
        """Nothing is left to take."""
        return self.left == 0 and not self._held and self._error is None
