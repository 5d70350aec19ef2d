"""A remote endpoint for tests: an HTTP transport that answers by a script and sees when its reader leaves."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from reason_engine.engines.openai.config import OpenAIConfig
from reason_engine.engines.openai.engine import OpenAIEngine

Event = Mapping[str, Any]


def choice(index: int = 0, finish: str | None = None, **delta: Any) -> Event:
    """A chat chunk of one choice."""
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def usage(prompt: int, completion: int, cached: int = 0) -> Event:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"choices": [], "usage": {**counts, "prompt_tokens_details": {"cached_tokens": cached}}}


@dataclass
class Endpoint:
    """Answers every POST by `script(body)`: events, an async iterator of them, or (status, error object); or later."""

    script: Callable[[dict[str, Any]], Any] = lambda body: []
    models: tuple[Event, ...] = ({"id": "m", "object": "model", "owned_by": "someone"},)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    open: int = 0
    headers: Mapping[str, str] = field(default_factory=lambda: {"retry-after-ms": "1"})
    """Of a refusal."""
    listing: tuple[int, Any] | None = None
    """What the model list is refused with."""
    routes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What other paths answer a GET with."""

    async def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.keys.add(request.headers["authorization"])
        if request.method == "GET" and request.url.path != "/v1/models":
            found = self.routes.get(request.url.path)
            return httpx2.Response(404 if found is None else 200, json=found or {"detail": "Not Found"})
        if request.method == "GET" and self.listing:
            return httpx2.Response(self.listing[0], json={"error": self.listing[1]})
        if request.method == "GET":
            return httpx2.Response(200, json={"object": "list", "data": list(self.models)})
        if not request.url.path.endswith("/completions"):
            return httpx2.Response(404, json={"detail": "Not Found"})
        body = json.loads(await request.aread())
        self.bodies.append(body)
        self.paths.append(request.url.path)
        answer = self.script(body)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, tuple):
            status, error = answer
            return httpx2.Response(status, json={"error": error}, headers=dict(self.headers))
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Events(self, answer))

    def engine(self, **config: Any) -> OpenAIEngine:
        vllm = self.models[0].get("owned_by") == "vllm"
        known = {"max_retries": 0, "max_wait": 0, "probe": False, "prefill": "auto" if vllm else "no"}
        settings = OpenAIConfig(base_url="http://endpoint/v1", **{**known, **config})
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(self.handle))
        return OpenAIEngine(settings, http_client=client)


class Events(httpx2.AsyncByteStream):
    """A body of server-sent events that tells when its reader has left."""

    def __init__(self, endpoint: Endpoint, events: Any) -> None:
        self.endpoint, self.events = endpoint, events
        endpoint.open += 1

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if isinstance(self.events, list):
            for event in self.events:
                yield encoded(event)
        else:
            async for event in self.events:
                yield encoded(event)
        yield b"data: [DONE]\n\n"

    async def aclose(self) -> None:
        self.endpoint.open -= 1


def encoded(event: Event) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()
