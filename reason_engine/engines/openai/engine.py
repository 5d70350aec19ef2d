"""Any OpenAI-compatible endpoint, or several with the same model, as an engine, through the `openai` package.

The endpoint owns template, parsers and tokens. Its kind is recognised at start (`kinds.py`), what it can do is found by
asking it (`probe.py`) and told in `caps`, `info.found` and the log. Where it takes token ids and `tokenizer` names a
checkpoint folder with the same template, prompts are rendered here, sent as text or ids, and paths are continued
exactly; otherwise prompts are sent as messages (`wire/conversation.py`) and budgets are held by `max_tokens` alone.

Several endpoints share the requests (`balance.py`); a request outlives the endpoint that it was on (`delivery.py`).

Probabilities over options come from the alternatives of one token: options must differ in their first token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from reason_engine.contracts import Capabilities, Health, Parsed, Replica
from reason_engine.engines import check_counts, engines
from reason_engine.engines.chat import AS_FOUND, ChatFormat, Parsers
from reason_engine.engines.openai.config import OpenAIConfig
from reason_engine.engines.openai.delivery import Delivery
from reason_engine.engines.openai.exchange import Exchange
from reason_engine.engines.openai.fleet import Fleet
from reason_engine.engines.openai.wire import plain
from reason_engine.engines.openai.wire.choice import choice_of
from reason_engine.engines.openai.wire.conversation import Conversation, encode
from reason_engine.engines.openai.wire.dialects import DIALECTS
from reason_engine.engines.openai.wire.marks import parse
from reason_engine.engines.openai.wire.prefill import BegunTurn
from reason_engine.engines.openai.wire.request import lacks
from reason_engine.engines.openai.wire.stops import ended_at
from reason_engine.engines.openai.wire.stream import ChunkStream
from reason_engine.engines.rewards.endpoints import Endpoints
from reason_engine.errors import EngineDead, UnknownModel
from reason_engine.types import (
    Choice,
    ChoiceRequest,
    Chunk,
    GenerateRequest,
    Message,
    ModelInfo,
    Sampling,
    ScoreRequest,
    Scores,
)

if TYPE_CHECKING:
    from httpx2 import AsyncClient

log = logging.getLogger("reason_engine.engines.openai")

_ASSUMED_CONTEXT = 32_768


@engines.register("openai")
class OpenAIEngine:
    """Constructing it contacts nobody; `start` asks the endpoints. `rewards` are reward models behind endpoints, by
    name. `http_client`, `now` and `sleep` serve tests."""

    def __init__(
        self,
        config: OpenAIConfig,
        *,
        http_client: AsyncClient | None = None,
        rewards: Mapping[str, str] | None = None,
        reward_keys: Mapping[str, SecretStr] | None = None,
        parsers: Parsers = AS_FOUND,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.config, self._parsers = config, parsers
        self._rewards = Endpoints(rewards or {}, keys=reward_keys)
        self._format = ChatFormat.load(FilePath(config.tokenizer), parsers) if config.tokenizer else None
        self._fleet = Fleet(config, now, sleep, http_client)
        self._running: dict[str, ChunkStream] = {}
        self._generated = 0
        self._thinks = False
        """Whether it was seen to think: the model list does not tell."""

    @property
    def caps(self) -> Capabilities:
        abilities, served = self._fleet.findings.abilities, self._rewards
        exact = self._format is not None and abilities.takes_ids and abilities.sends_ids
        return Capabilities(
            logprobs=abilities.logprobs, token_ids=exact, continuation=exact, prefill=abilities.prefill is not None,
            choose=abilities.logprobs > 0, score=bool(served.kinds), rewards=tuple(served.kinds.items()),
            aggregates=tuple(served.aggregates.items()), embeds=served.embeds, structured=abilities.structured,
            drafting=("none",), seeds=abilities.seeds is not False,
        )  # fmt: skip

    @property
    def info(self) -> ModelInfo:
        fleet, url = self._fleet, self.config.base_url
        context = self.config.context or fleet.findings.found.context or _ASSUMED_CONTEXT
        fingerprint = f"openai:{fleet.model}"
        if self._format:
            info = self._format.info(fleet.model, url, context, fingerprint)
        else:
            made = ModelInfo(fleet.model, url, context, self._thinks, fingerprint=fingerprint)
            info = self._parsers.marked(made)
        told = fleet.findings.report(fleet.upstreams, context) if fleet.started else {}
        return replace(info, found=(*info.found, *(f"{subject}: {detail}" for subject, (_, detail) in told.items())))

    @property
    def report(self) -> dict[str, tuple[bool, str]]:
        """What is known of the endpoints, by subject: whether it is there, and in words."""
        return self._fleet.findings.report(self._fleet.upstreams, self.info.context)

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """How each endpoint is, as far as is known without asking it."""
        return tuple(one.state for one in self._fleet.upstreams)

    async def start(self) -> None:
        """Connect, read the model lists, ask what can be done. Raises EngineDead, EngineError, or UnknownModel for a
        name not listed."""
        await self._fleet.start(self.info)

    async def asked(self) -> None:
        """Wait for the questions that are out, where any are: what was not answered at start is asked again beside
        the requests."""
        await self._fleet.findings.asked()

    async def close(self) -> None:
        """End all streams and close the connections; again: no effect."""
        for stream in tuple(self._running.values()):
            stream.abort()
        await self._rewards.close()
        await self._fleet.close()

    async def health(self) -> Health:
        running = sum(stream.width for stream in self._running.values())
        return replace(await self._fleet.health(), running=running, generated_tokens=self._generated)

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        if not self._fleet.started:
            raise EngineDead("the engine is not started")
        if isinstance(request.prompt, tuple) and not self.caps.continuation:
            raise lacks("this endpoint takes no token ids")
        check_counts(request, self._running)
        exchange, stops, sent = self._exchange(), (), request
        think_start = exchange.info.think_start
        if request.sampling.include_stop and "include_stop" not in exchange.dialect.names:
            stops = request.sampling.stop
            sent = replace(request, sampling=replace(request.sampling, stop=(), include_stop=False))
        exchange.body(sent)  # refuses what cannot be sent
        self._fleet.ask_again()
        stream = self._running[request.id] = ChunkStream(request.n)
        stream.task = asyncio.create_task(Delivery(sent, stream, self._fleet, exchange).run())
        try:
            async for chunk in ended_at(stream.chunks(), stops):
                self._generated += chunk.token_count
                self._thinks = self._thinks or chunk.text.startswith(think_start)
                yield chunk
        finally:
            stream.abort()
            del self._running[request.id]
            await asyncio.wait([stream.task])

    async def abort(self, request_id: str, index: int | None = None) -> None:
        if index is not None:
            raise lacks("the samples of one call to an endpoint end together")
        if stream := self._running.get(request_id):
            stream.abort()

    async def choose(self, request: ChoiceRequest) -> Choice:
        """One token's alternatives, each credited to the only option that it begins.

        An option that is not among them gets 0. Raises CapabilityMissing where the endpoint reports no alternatives, or
        where its model thinks first.
        """
        if self.caps.logprobs <= 0:
            raise lacks("this endpoint reports no logprobs")
        sampling = Sampling(max_tokens=1, temperature=1.0, logprobs=self.caps.logprobs)
        one = GenerateRequest(request.id, request.prompt, sampling=sampling, adapter=request.adapter)
        chunks = [chunk async for chunk in self.generate(one)]
        return choice_of(request.options, chunks, self.info.think_start)

    async def score(self, request: ScoreRequest) -> Scores:
        """By an endpoint of its own: a generating one has no head that scores. Raises RequestError kinds."""
        return await self._rewards.score(request)

    async def load_adapter(self, name: str, path: str) -> None:
        raise lacks("adapters of a remote endpoint are its own models")

    async def unload_adapter(self, name: str) -> None:
        raise UnknownModel(f"no adapter {name!r}", param="name")

    async def draft_from(self, texts: Sequence[Sequence[int]]) -> None:
        """It does not draft."""

    def adapters(self) -> tuple[str, ...]:
        return ()

    def tokenize(self, text: str) -> list[int]:
        """The model's tokens where its `tokenizer` is at hand, else an estimate for room in the context. Only
        `caps.token_ids` promises that the endpoint takes them."""
        return self._format.tokenize(text) if self._format else plain.tokenize(text)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        return self._format.detokenize(token_ids) if self._format else plain.detokenize(token_ids)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | None = None,
        prefill: str = "",
    ) -> str:
        if self._format:
            return self._format.render_chat(messages, tools=tools, think=think, prefill=prefill)
        return encode(Conversation(tuple(messages), tuple(tools), think, prefill))

    def parse(self, text: str, *, prompt: str = "") -> Parsed:
        if self._format:
            return self._format.parse(text, prompt=prompt)
        marks = self.info
        return parse(text, opened=prompt.rfind(marks.think_start) > prompt.rfind(marks.think_end), info=marks)

    def _exchange(self) -> Exchange:
        fleet, info, config = self._fleet, self.info, self.config
        way = fleet.findings.abilities.prefill
        begun = BegunTurn(way, info.think_start, info.think_end) if way else None
        dialect = DIALECTS[fleet.findings.found.kind]
        return Exchange(fleet.model, dialect, info, begun, self.caps.token_ids, config.limit_field, config.extra_body)
