"""Any OpenAI-compatible endpoint as an engine, through the `openai` package.

The endpoint owns template, parsers and tokens; what it lacks is declared in `caps`. Where it speaks vLLM's dialect
(found at start from its model list, or set) and `tokenizer` names a checkpoint folder with the same template, prompts
are rendered here, sent as text or token ids, and paths can be continued exactly; otherwise prompts are sent as messages
(`request.encode`) and budgets are held by `max_tokens` alone.

Probabilities over options come from the alternatives of one token: options must differ in their first token.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr

from reason_engine.contracts import Capabilities, Health, Parsed
from reason_engine.engines import check_counts, engines
from reason_engine.engines.chat import AS_FOUND, ChatFormat, Parsers
from reason_engine.engines.openai.choice import choice_of
from reason_engine.engines.openai.prefill import (
    BEGUN,
    PROBE_SECONDS,
    PROBE_TOKENS,
    QUESTION,
    BegunTurn,
    Prefill,
    find_prefill,
)
from reason_engine.engines.openai.request import Conversation, Dialect, body, encode, lacks
from reason_engine.engines.openai.response import ResponseReader, mapped_error, parse
from reason_engine.engines.openai.stops import ended_at
from reason_engine.engines.openai.stream import ChunkStream
from reason_engine.engines.rewards.endpoints import Endpoints
from reason_engine.errors import EngineDead, EngineError, UnknownModel, first_error
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
    from openai import AsyncOpenAI

log = logging.getLogger("reason_engine.engines.openai")

_ASSUMED_CONTEXT = 32_768


class OpenAIConfig(BaseModel, extra="forbid", frozen=True):
    """Where the endpoint is and what it can do.

    `model`: None takes the first one listed. `api_key`: None sends a placeholder; OPENAI_API_KEY is read for OpenAI's
    own host only, so that it reaches no other. `context`: tokens, where the endpoint does not tell. `logprobs`: most
    alternatives it reports; -1 for an endpoint without any. `tokenizer`: a local checkpoint folder whose tokenizer
    and template are the served model's. `limit_field`: how the endpoint calls the length limit of a chat.
    `prefill`: how it takes a begun answer (`prefill.py`); `auto` finds out at start, `no`: not at all. `extra_body`:
    fields added to every request.
    """

    base_url: str
    model: str | None = None
    api_key: SecretStr | None = None
    dialect: Literal["auto", "openai", "vllm"] = "auto"
    tokenizer: str | None = None
    context: int | None = Field(None, ge=1)
    logprobs: int = Field(20, ge=-1)
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    prefill: Literal["auto", "no", "turn", "prefix", "flags"] = "auto"
    timeout: float = Field(600, gt=0)
    max_retries: int = Field(2, ge=0)
    extra_body: Mapping[str, Any] = Field(default_factory=dict[str, Any])


@engines.register("openai")
class OpenAIEngine:
    """Constructing it contacts nobody; `start` asks the endpoint for its models. `http_client` serves tests, `rewards`
    are reward models behind endpoints, by name."""

    def __init__(
        self,
        config: OpenAIConfig,
        *,
        http_client: AsyncClient | None = None,
        rewards: Mapping[str, str] | None = None,
        reward_keys: Mapping[str, SecretStr] | None = None,
        parsers: Parsers = AS_FOUND,
    ) -> None:
        self.config, self._parsers = config, parsers
        self._rewards = Endpoints(rewards or {}, keys=reward_keys)
        self._http_client = http_client
        self._client: AsyncOpenAI | None = None
        self._dialect: Dialect = "vllm" if config.dialect == "vllm" else "openai"
        self._format = ChatFormat.load(FilePath(config.tokenizer), parsers) if config.tokenizer else None
        self._model = config.model or ""
        self._context = config.context or _ASSUMED_CONTEXT
        self._running: dict[str, ChunkStream] = {}
        self._generated = 0
        self._honours_n = True
        self._begun: BegunTurn | None = None
        self._thinks = False
        """Whether it was seen to think: the model list does not tell."""

    @property
    def caps(self) -> Capabilities:
        exact = self._dialect == "vllm" and self._format is not None
        served, logprobs = self._rewards, self.config.logprobs
        return Capabilities(
            logprobs=logprobs, token_ids=exact, continuation=exact, prefill=self._begun is not None,
            choose=logprobs > 0, score=bool(served.kinds), rewards=tuple(served.kinds.items()),
            aggregates=tuple(served.aggregates.items()), embeds=served.embeds, structured=True, drafting=("none",),
        )  # fmt: skip

    @property
    def info(self) -> ModelInfo:
        url, fingerprint = self.config.base_url, f"openai:{self._model}"
        if self._format:
            return self._format.info(self._model, url, self._context, fingerprint)
        info = ModelInfo(self._model, url, self._context, self._thinks, fingerprint=fingerprint)
        return self._parsers.marked(info)

    async def start(self) -> None:
        """Connect and read the model list. Raises EngineDead, EngineError, or UnknownModel for a name not listed."""
        from openai import AsyncOpenAI

        key = self.config.api_key.get_secret_value() if self.config.api_key else None
        self._client = AsyncOpenAI(
            base_url=self.config.base_url,
            api_key=key or _key_from_environment(self.config.base_url),
            timeout=self.config.timeout,
            max_retries=self.config.max_retries,
            http_client=self._http_client,
        )
        listed = await self._models()
        entry = next((m for m in listed if m["id"] == self._model or not self._model), None)
        if entry is None:
            names = ", ".join(m["id"] for m in listed[:8])
            raise UnknownModel(f"the endpoint has no model {self._model!r}; it has: {names}", param="model")
        self._model = entry["id"]
        if self.config.context is None:
            self._context = entry.get("max_model_len") or _ASSUMED_CONTEXT
        if self.config.dialect == "auto":
            self._dialect = "vllm" if entry.get("owned_by") == "vllm" else "openai"
        way = await self._prefill()
        self._begun = BegunTurn(way, self.info.think_start, self.info.think_end) if way else None

    async def close(self) -> None:
        """End all streams and close the connection; again: no effect."""
        for stream in tuple(self._running.values()):
            stream.abort()
        await self._rewards.close()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def health(self) -> Health:
        running = sum(stream.width for stream in self._running.values())
        if self._client is None:
            return Health(ready=False, live=False, generated_tokens=self._generated, detail="not started")
        try:
            await self._models()
        except EngineError as error:
            live = not isinstance(error, EngineDead)
            return Health(False, live, running, 0, self._generated, str(error))
        return Health(True, True, running, 0, self._generated)

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        client = self._connected()
        if isinstance(request.prompt, tuple) and not self.caps.continuation:
            raise lacks("this endpoint takes no token ids")
        check_counts(request, self._running)
        stops, asked = (), request.sampling
        if asked.include_stop and self._dialect != "vllm":
            stops, asked = asked.stop, replace(asked, stop=(), include_stop=False)
        sent = replace(request, sampling=asked)
        fields = body(sent, self._dialect, limit_field=self.config.limit_field, begun=self._begun)
        stream = self._running[request.id] = ChunkStream(request.n)
        stream.task = asyncio.create_task(self._fill(stream, client, request, fields))
        try:
            async for chunk in ended_at(stream.chunks(), stops):
                self._generated += chunk.token_count
                self._thinks = self._thinks or chunk.text.startswith(self.info.think_start)
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
        if self.config.logprobs <= 0:
            raise lacks("this endpoint reports no logprobs")
        sampling = Sampling(max_tokens=1, temperature=1.0, logprobs=self.config.logprobs)
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
        """The model's tokens where its `tokenizer` is at hand, else an estimate for room in the context: pieces of
        three bytes, which `detokenize` turns back. Only `caps.token_ids` promises that the endpoint takes them."""
        if self._format:
            return self._format.tokenize(text)
        raw = text.encode("utf-8", "surrogatepass")
        return [int.from_bytes(b"\1" + raw[at : at + 3]) for at in range(0, len(raw), 3)]

    def detokenize(self, token_ids: Sequence[int]) -> str:
        if self._format:
            return self._format.detokenize(token_ids)
        raw = b"".join(number.to_bytes(4).lstrip(b"\0")[1:] for number in token_ids)
        return raw.decode("utf-8", "replace")

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

    def _connected(self) -> AsyncOpenAI:
        if self._client is None:
            raise EngineDead("the engine is not started")
        return self._client

    async def _prefill(self) -> Prefill | None:
        """How the endpoint takes a begun answer, as configured, as known of its kind, or found by asking it."""
        asked = self.config.prefill
        if asked != "auto":
            return None if asked == "no" else asked
        if self._dialect == "vllm":
            return "flags"
        if _is_openai(self.config.base_url):
            return None
        way = await find_prefill(self._go_on)
        log.info("begun answers: %s (found by asking the endpoint to go on with one)", way or "not continued")
        return way

    async def _go_on(self, way: Prefill) -> str:
        """What the endpoint says behind a sentence that was begun for it."""
        self._begun = BegunTurn(way, self.info.think_start, self.info.think_end)
        sampling = Sampling(max_tokens=PROBE_TOKENS, temperature=0.0)
        request = GenerateRequest(
            f"begun-{way}", self.render_chat((Message("user", QUESTION),), prefill=BEGUN), 1, sampling
        )
        async with asyncio.timeout(PROBE_SECONDS):
            return "".join([chunk.text async for chunk in self.generate(request)])

    async def _models(self) -> list[dict[str, Any]]:
        try:
            page = await self._connected().models.list()
        except Exception as error:  # the boundary to the network
            raise mapped_error(error) from error
        return [model.to_dict() for model in page.data]

    async def _fill(
        self, stream: ChunkStream, client: AsyncOpenAI, request: GenerateRequest, fields: dict[str, Any]
    ) -> None:
        """Put the chunks of all samples into the stream: from one call, or from one call a sample where `n` is not
        honoured. Failures go through the stream too."""
        model, begun = request.adapter or self._model, 0
        try:
            if request.n == 1 or self._honours_n:
                begun = await self._call(stream, client, fields, model)
            if begun < request.n:
                self._honours_n = False
                async with asyncio.TaskGroup() as group:
                    for index in range(begun, request.n):
                        alone = fields | {"n": 1, "seed": request.sampling.seed + index}
                        group.create_task(self._call(stream, client, alone, model, index))
        except Exception as error:  # the boundary to the network
            cause = first_error(error)
            assert isinstance(cause, Exception)
            stream.put(mapped_error(cause))

    async def _call(
        self, stream: ChunkStream, client: AsyncOpenAI, fields: dict[str, Any], model: str, first: int = 0
    ) -> int:
        """One HTTP request, its chunks put into the stream. Returns how many samples it answered."""
        from openai import AsyncStream, BadRequestError

        reader = ResponseReader(self.info, first, counted=self._dialect == "vllm")
        path = "/chat/completions" if "messages" in fields else "/completions"
        sent = {"model": model, **fields, **self.config.extra_body}
        kind = AsyncStream[Any]
        try:  # the SDK's raw method: its typed `create` knows OpenAI's own fields only
            answer = await client.post(path, body=sent, cast_to=object, stream=True, stream_cls=kind)
        except BadRequestError as error:
            if fields["n"] > 1 and error.param == "n":
                return 0
            raise
        async with answer:
            async for event in answer:
                for chunk in reader.read(event):
                    stream.put(chunk)
        for chunk in reader.finish():
            stream.put(chunk)
        return reader.seen


def _is_openai(url: str) -> bool:
    """Whether it is OpenAI's own host."""
    return urlsplit(url).hostname == "api.openai.com"


def _key_from_environment(url: str) -> str:
    return (os.environ.get("OPENAI_API_KEY") if _is_openai(url) else None) or "none"
