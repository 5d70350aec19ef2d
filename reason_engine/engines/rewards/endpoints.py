"""Reward models and embedders behind URLs: vLLM's servers, and OpenAI's API of embeddings. Never loads torch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import SecretStr

from reason_engine import errors
from reason_engine.engines.rewards.embedding import choose_embedder, embed
from reason_engine.engines.rewards.formats import RewardKind
from reason_engine.engines.rewards.layout import show
from reason_engine.engines.rewards.naming import Endpoint, choose_reward, is_url, read_endpoint
from reason_engine.engines.rewards.pooling import RewardServer
from reason_engine.errors import RequestError
from reason_engine.types import Aggregate, ScoreRequest, Scores

if TYPE_CHECKING:
    from openai import AsyncOpenAI

AT_ONCE = 8
"""Requests to endpoints at a time."""


class Endpoints:
    """Models behind URLs, each by its name. `client` serves tests."""

    def __init__(
        self, urls: Mapping[str, str], *, keys: Mapping[str, SecretStr] | None = None, client: AsyncOpenAI | None = None
    ) -> None:
        """`keys` are sent to the endpoints of these names and to no other. Raises SetupError for a name without one."""
        for name, url in urls.items():
            if not is_url(url):
                raise errors.SetupError(
                    f"reward model {name!r}: this engine serves one model; serve {url} beside it "
                    f"(vllm serve {url} --runner pooling --port 8001) and name it {name}=http://127.0.0.1:8001"
                )
        self._endpoints = {name: read_endpoint(name, url) for name, url in urls.items()}
        self._keys = dict(keys or {})
        if stray := next((name for name in self._keys if name not in urls), None):
            raise errors.SetupError(f"reward_keys: no endpoint among the reward models is named {stray!r}")
        self._given = client
        self._clients: dict[str, AsyncOpenAI] = {}
        self._servers: dict[str, RewardServer] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)
        judges = {name: one.format for name, one in self._endpoints.items() if not one.embeds}
        self.embeds = tuple(name for name, one in self._endpoints.items() if one.embeds)
        self.kinds: dict[str, RewardKind] = {name: format.kind for name, format in judges.items()}
        """Of each reward model by name; `embeds`: the names of those that embed."""
        self.aggregates: dict[str, Aggregate] = {
            name: format.aggregate for name, format in judges.items() if format.kind == "process"
        }
        """How each step model's scores usually make a path's."""

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
        self._servers.clear()

    async def score(self, request: ScoreRequest) -> Scores:
        """Raw values, before any squashing: one a text, or one an end; or vectors. Raises EngineError where the
        endpoint fails."""
        if request.task == "embed":
            name = choose_embedder(request, self.embeds)
            async with self._turn:
                return await embed(self._client(name), name, self._endpoints[name].model, request.inputs)
        if not self.kinds:
            raise errors.CapabilityMissing(
                "no reward model is served; serve one beside the model (vllm serve MODEL --runner pooling --port 8001) "
                "and name it with --reward-model NAME=http://127.0.0.1:8001",
                param="reasoning.verifier",
                code="capability_missing",
            )
        name = choose_reward(request, self.kinds)
        ends = request.ends if request.task == "token_reward" else tuple((len(t),) for t in request.inputs)
        if len(ends) != len(request.inputs):
            raise RequestError("a remote process model needs the places to read", param="ends")
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._one(name, request, text, its))
                    for text, its in zip(request.inputs, ends, strict=True)
                ]
        except BaseExceptionGroup as group:
            raise errors.first_error(group) from None
        values, tokens = zip(*(task.result() for task in tasks), strict=True) if tasks else ((), ())
        return Scores(tuple(values), sum(tokens))

    async def _one(
        self, name: str, request: ScoreRequest, text: str, ends: tuple[int, ...]
    ) -> tuple[tuple[float, ...], int]:
        """(the values of one text, tokens read): one pass over it."""
        if not ends:
            return (), 0
        format, server = self._endpoints[name].format, self._server(name)
        async with self._turn:
            if format.read == "end":
                value, tokens = await server.outcome(request.turns, text, format.ending)
                return (value,), tokens
            return await server.steps(show(format, request.turns, text, ends), format)

    def _server(self, name: str) -> RewardServer:
        if name not in self._servers:
            self._servers[name] = RewardServer(self._client(name), name, self._endpoints[name].model)
        return self._servers[name]

    def _client(self, name: str) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        if name not in self._clients:
            endpoint: Endpoint = self._endpoints[name]
            client = self._given or AsyncOpenAI(base_url=endpoint.url, api_key="none", timeout=60)
            key = self._keys[name].get_secret_value() if name in self._keys else None
            self._clients[name] = client.with_options(base_url=endpoint.url, api_key=key)
        return self._clients[name]
