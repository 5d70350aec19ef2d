"""One request to one endpoint, and the chunks that come back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from reason_engine.engines.openai.upstream import Upstream
from reason_engine.engines.openai.wire.dialects import Dialect
from reason_engine.engines.openai.wire.prefill import BegunTurn
from reason_engine.engines.openai.wire.request import body
from reason_engine.engines.openai.wire.response import ResponseReader
from reason_engine.errors import EngineError
from reason_engine.types import Chunk, GenerateRequest, ModelInfo


@dataclass(frozen=True, slots=True)
class Exchange:
    """How the endpoints are spoken to. `begun`: how they take a begun answer; `ids`: whether the tokens' ids are
    wanted; `extra`: fields of every request."""

    model: str
    dialect: Dialect
    info: ModelInfo
    begun: BegunTurn | None = None
    ids: bool = False
    limit_field: str = "max_tokens"
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def body(self, request: GenerateRequest) -> dict[str, Any]:
        """What is sent. Raises CapabilityMissing and RequestError before anything is."""
        return body(request, self.dialect, limit_field=self.limit_field, begun=self.begun, ids=self.ids)

    async def chunks(
        self, upstream: Upstream, request: GenerateRequest, first: int = 0, *, carried: bool = False
    ) -> AsyncGenerator[Chunk]:
        """The samples of one call, from index `first` on. `carried`: they go on with an open thought.

        Where the stream breaks, the samples that had ended are ended first. Raises EngineError kinds and RequestError
        kinds.
        """
        most = request.sampling.logprobs
        async with aclosing(
            self.replies(upstream, self.body(request), request.adapter, first, carried, most or 0)
        ) as chunks:
            async for chunk in chunks:
                yield chunk

    async def replies(
        self,
        upstream: Upstream,
        fields: Mapping[str, Any],
        model: str | None = None,
        first: int = 0,
        carried: bool = False,
        alternatives: int = 1 << 30,
    ) -> AsyncGenerator[Chunk]:
        """The chunks that answer a body."""
        reader = ResponseReader(self.info, first, usage=self.dialect.usage, alternatives=alternatives, carried=carried)
        path = "/chat/completions" if "messages" in fields else "/completions"
        sent = {"model": model or self.model, **fields, **self.extra}
        try:
            async with aclosing(upstream.events(path, sent)) as events:
                async for event in events:
                    for chunk in reader.read(event):
                        yield chunk
            for chunk in reader.finish():
                yield chunk
        except (EngineError, AttributeError, KeyError, TypeError) as error:
            for chunk in reader.rescued():
                yield chunk
            if isinstance(error, EngineError):
                raise
            raise EngineError(f"the endpoint's answer cannot be read: {error!r}") from error
