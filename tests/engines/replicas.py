"""Several remote endpoints for tests, by host name, behind one engine whose clock moves by its own pauses only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2

from reason_engine.engines.openai.config import OpenAIConfig
from reason_engine.engines.openai.engine import OpenAIEngine
from tests.engines.endpoint import Endpoint


@dataclass
class Clock:
    """Time that passes only where somebody sleeps."""

    at: float = 1000.0
    pauses: list[float] = field(default_factory=list[float])
    waking: Callable[[float], None] = lambda at: None
    """Told of the time after each pause."""

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.at += seconds
        self.waking(self.at)


class Replicas:
    """Endpoints `a`, `b`, … behind one engine. A host in `down` cannot be reached."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self.hosts = {f"{chr(97 + number)}": endpoint for number, endpoint in enumerate(endpoints)}
        self.down: set[str] = set()
        self.clock = Clock()
        self.seen: list[str] = []
        """The host of every POST."""
        self.listings: Counter[str] = Counter()
        """How often a host was asked for its models."""

    async def handle(self, request: httpx2.Request) -> httpx2.Response:
        host = request.url.host
        self.listings[host] += request.url.path == "/v1/models"
        if host in self.down:
            raise httpx2.ConnectError("refused", request=request)
        if request.method == "POST":
            self.seen.append(host)
        return await self.hosts[host].handle(request)

    def engine(self, **config: Any) -> OpenAIEngine:
        first, *others = (f"http://{host}:80/v1" for host in self.hosts)
        known = {"max_retries": 0, "max_wait": 0, "probe": False, "prefill": "no"}
        settings = OpenAIConfig(base_url=first, replicas=tuple(others), **{**known, **config})
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(self.handle))
        return OpenAIEngine(settings, http_client=client, now=self.clock.now, sleep=self.clock.sleep)
