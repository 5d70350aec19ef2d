"""Any OpenAI-compatible endpoint as an engine, through the `openai` package.

The endpoint owns template, parsers and tokens; what it lacks is declared in `caps`. Where it speaks vLLM's dialect
(found at start from its model list, or set) and `tokenizer` names a checkpoint folder with the same template, prompts
are rendered here, sent as text or token ids, and paths can be continued exactly; otherwise prompts are sent as messages
(`request.encode`) and budgets are held by `max_tokens` alone.

Probabilities over options come from the alternatives of one token: options must differ in their first token.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr

from reason_engine.contracts import Capabilities, Health, Parsed
from reason_engine.engines import check_counts, engines
from reason_engine.engines.chat import ChatFormat
from reason_engine.engines.openai.request import Conversation, Dialect, body, encode, lacks
from reason_engine.engines.openai.response import THINK_END, THINK_START, ResponseReader, mapped_error, parse
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

_ASSUMED_CONTEXT = 32_768


class OpenAIConfig(BaseModel, extra="forbid", frozen=True):
    """Where the endpoint is and what it can do.

    `model`: None takes the first one listed. `api_key`: None sends a placeholder; OPENAI_API_KEY is read for OpenAI's
    own host only, so that it reaches no other. `context`: tokens, where the endpoint does not tell. `logprobs`: most
    alternatives it reports; -1 for an endpoint without any. `tokenizer`: a local checkpoint folder whose tokenizer
    and template are the served model's. `limit_field`: how the endpoint calls the length limit of a chat.
    `extra_body`: fields added to every request.
    """

    base_url: str
    model: str | None = None
    api_key: SecretStr | None = None
    dialect: Literal["auto", "openai", "vllm"] = "auto"
    tokenizer: str | None = None
    context: int | None = Field(None, ge=1)
    logprobs: int = Field(20, ge=-1)
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
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
    ) -> None:
        self.config = config
        self._rewards = Endpoints(rewards or {}, keys=reward_keys)
        self._http_client = http_client
        self._client: AsyncOpenAI | None = None
        self._dialect: Dialect = "vllm" if config.dialect == "vllm" else "openai"
        self._format = ChatFormat.load(FilePath(config.tokenizer)) if config.tokenizer else None
        self._model = config.model or ""
        self._context = config.context or _ASSUMED_CONTEXT
        self._running: dict[str, _Stream] = {}
        self._generated = 0
        self._honours_n = True

    @property
    def caps(self) -> Capabilities:
        exact = self._dialect == "vllm" and self._format is not None
        served, logprobs = self._rewards, self.config.logprobs
        return Capabilities(
            logprobs=logprobs, token_ids=exact, continuation=exact, choose=logprobs > 0, score=bool(served.kinds),
            rewards=tuple(served.kinds.items()),
            aggregates=tuple(served.aggregates.items()), embeds=served.embeds, structured=True, drafting=("none",),
        )  # fmt: skip

    @property
    def info(self) -> ModelInfo:
        make = self._format.info if self._format else ModelInfo
        return make(self._model, self.config.base_url, self._context, fingerprint=f"openai:{self._model}")

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
        fields = body(request, self._dialect, limit_field=self.config.limit_field)
        stream = self._running[request.id] = _Stream(request.n)
        stream.task = asyncio.create_task(self._fill(stream, client, request, fields))
        try:
            async for chunk in stream.chunks():
                self._generated += chunk.token_count
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

        An option that is not among them gets 0. Raises CapabilityMissing where the endpoint reports no alternatives.
        """
        if not self.caps.choose:
            raise lacks("this endpoint reports no logprobs")
        sampling = Sampling(max_tokens=1, temperature=1.0, logprobs=self.config.logprobs)
        one = GenerateRequest(request.id, request.prompt, sampling=sampling, adapter=request.adapter)
        chunks = [chunk async for chunk in self.generate(one)]
        places = [chunk.logprobs[0].top for chunk in chunks if chunk.logprobs]
        top = next(filter(None, places), ())
        if not top:
            raise lacks("the endpoint was asked for logprobs and sent none")
        shares = option_shares(request.options, {token: logprob for _, token, logprob in top})
        mass = sum(shares)
        probabilities = tuple(share / mass if mass else 1 / len(shares) for share in shares)
        counts = zip(*((one.prompt_tokens, one.cached_tokens, one.token_count) for one in chunks), strict=True)
        return Choice(probabilities, min(1.0, mass), *map(sum, counts))

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
        return parse(text, opened=prompt.rfind(THINK_START) > prompt.rfind(THINK_END))

    def _connected(self) -> AsyncOpenAI:
        if self._client is None:
            raise EngineDead("the engine is not started")
        return self._client

    async def _models(self) -> list[dict[str, Any]]:
        try:
            page = await self._connected().models.list()
        except Exception as error:  # the boundary to the network
            raise mapped_error(error) from error
        return [model.to_dict() for model in page.data]

    async def _fill(
        self, stream: _Stream, client: AsyncOpenAI, request: GenerateRequest, fields: dict[str, Any]
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
        self, stream: _Stream, client: AsyncOpenAI, fields: dict[str, Any], model: str, first: int = 0
    ) -> int:
        """One HTTP request, its chunks put into the stream. Returns how many samples it answered."""
        from openai import AsyncStream, BadRequestError

        reader = ResponseReader(first, counted=self._dialect == "vllm")
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


class _Stream:
    """The chunks of one request passed from the task that makes them to their reader."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.task: asyncio.Task[None]
        self._items: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()

    def put(self, item: Chunk | Exception) -> None:
        """An error ends the stream."""
        self._items.put_nowait(item)

    def abort(self) -> None:
        """Close the connection, and end what is open with `abort`."""
        self.task.cancel()
        self._items.put_nowait(None)

    async def chunks(self) -> AsyncIterator[Chunk]:
        unfinished = set(range(self.width))
        while unfinished:
            item = await self._items.get()
            if item is None:
                for index in sorted(unfinished):
                    yield Chunk(index, finish_reason="abort")
                return
            if isinstance(item, Exception):
                raise item
            if item.finish_reason:
                unfinished.discard(item.index)
            yield item


def option_shares(options: Sequence[str], top: Mapping[str, float]) -> list[float]:
    """Probability of each option from the alternatives {token text: logprob} of the next token.

    A token counts for an option if it begins it (leading blanks aside) and begins no other one.
    """
    shares = [0.0] * len(options)
    for token, logprob in top.items():
        start = token.strip()
        begun = [i for i, option in enumerate(options) if start and option.strip().startswith(start)]
        if len(begun) == 1:
            shares[begun[0]] += math.exp(logprob)
    return shares


def _key_from_environment(url: str) -> str:
    own = urlsplit(url).hostname == "api.openai.com"
    return (os.environ.get("OPENAI_API_KEY") if own else None) or "none"
