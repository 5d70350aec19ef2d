"""One endpoint: its connection, what it lists, and how it has been doing.

After a failure it rests, each time twice as long, up to a minute; whoever asks for it after that finds out whether it
is back. One that says it is at capacity rests as long as it says.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from reason_engine.contracts import Replica
from reason_engine.engines.openai.config import OpenAIConfig, is_openai, shown
from reason_engine.engines.openai.kinds import Document
from reason_engine.engines.openai.wire.refusals import mapped_error
from reason_engine.errors import EngineBusy, EngineDead, EngineError, RequestError

if TYPE_CHECKING:
    from httpx2 import AsyncClient
    from openai import AsyncOpenAI

FIRST_REST, LONGEST_REST = 1.0, 60.0
SHORT_REST = 1.0
"""Seconds that one at capacity rests where it does not say how long."""
LEAST_REST = 0.1
"""One that says 0 is not asked in a loop."""
LIST_SECONDS, LOOK_SECONDS = 30.0, 5.0
"""Without a byte, of the model list and of what is looked at beside it; never more than of an answer."""


class Upstream:
    """`running` counts samples under way, `checked` says that it was seen to serve the model since it last failed."""

    def __init__(
        self, url: str, config: OpenAIConfig, now: Callable[[], float], http_client: AsyncClient | None = None
    ) -> None:
        self.url, self.name = url, shown(url)
        self.running, self.failures, self.until = 0, 0, 0.0
        self.error: EngineError | None = None
        self.checked = False
        self._config, self._now, self._http_client = config, now, http_client
        self._client: AsyncOpenAI | None = None

    def connect(self) -> None:
        """Make the connection's client; nothing is sent yet."""
        from openai import AsyncOpenAI, Timeout

        config = self._config
        key = config.api_key.get_secret_value() if config.api_key else None
        self._client = AsyncOpenAI(
            base_url=self.url,
            api_key=key or _key_from_environment(self.url),
            timeout=Timeout(config.timeout, connect=config.connect_timeout),
            max_retries=0,
            http_client=self._http_client,
        )

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    @property
    def usable(self) -> bool:
        """Whether it may be asked now."""
        return self._now() >= self.until

    @property
    def busy(self) -> bool:
        """Whether it rests since it is at its capacity."""
        return isinstance(self.error, EngineBusy) and not self.usable

    @property
    def rest(self) -> float:
        """Seconds that it still rests."""
        return max(0.0, self.until - self._now())

    @property
    def state(self) -> Replica:
        return Replica(self.name, self.error is None, self.running, str(self.error or ""))

    def failed(self, error: EngineError) -> None:
        """It broke off, cannot be reached, or serves something else."""
        self.error, self.checked = error, False
        self.until = self._now() + min(LONGEST_REST, FIRST_REST * 2**self.failures)
        self.failures = min(self.failures + 1, 16)

    def full(self, error: EngineBusy) -> None:
        """It lives, and is at its capacity."""
        self.error = error
        rest = SHORT_REST if error.pause is None else max(error.pause, LEAST_REST)
        self.until = max(self.until, self._now() + rest)

    def answered(self) -> None:
        """It is well."""
        self.error, self.failures, self.until = None, 0, 0.0

    async def models(self) -> list[Document]:
        """The model list. Raises EngineError kinds."""
        try:
            page = await self.connection.models.list(timeout=min(LIST_SECONDS, self._config.timeout))
            return [model.to_dict() for model in page.data]
        except Exception as error:  # the boundary to the network
            mapped = mapped_error(error)
            if isinstance(mapped, EngineError):
                raise mapped from error
            raise EngineError(f"the endpoint's model list cannot be read: {mapped}") from error

    async def look(self, path: str) -> Document:
        """The JSON object at a path of the server's root, which stands above `/v1`; empty where there is none."""
        root = self.url.rstrip("/").removesuffix("/v1")
        try:
            found = await self.connection.get(root + path, cast_to=object, options={"timeout": LOOK_SECONDS})
        except Exception as error:  # the boundary to the network: a route that is not there tells nothing
            if not isinstance(mapped_error(error), EngineError | ValueError):
                raise
            return {}
        return found if isinstance(found, dict) else {}

    async def counts(self, path: str, fields: Mapping[str, Any]) -> bool:
        """Whether a path of the root takes these fields."""
        root = self.url.rstrip("/").removesuffix("/v1")
        try:
            await self.connection.post(root + path, body=fields, cast_to=object, options={"timeout": LOOK_SECONDS})
        except Exception as error:  # the boundary to the network, as above
            if not isinstance(mapped_error(error), EngineError | ValueError):
                raise
            return False
        return True

    async def events(self, path: str, fields: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any]]:
        """The objects of one streamed answer. Raises the package's own errors."""
        from openai import AsyncStream

        kind = AsyncStream[Any]
        try:  # the SDK's raw method: its typed `create` knows OpenAI's own fields only
            answer = await self.connection.post(path, body=fields, cast_to=object, stream=True, stream_cls=kind)
            async with answer:
                async for event in answer:
                    if not isinstance(event, dict):
                        raise EngineError("the endpoint sent something else than JSON objects")
                    yield event
        except Exception as error:  # the boundary to the network
            mapped = mapped_error(error)
            if mapped is error and isinstance(error, ValueError) and not isinstance(error, RequestError):
                mapped = EngineError(f"the endpoint's answer cannot be read: {error}")
            if mapped is error:
                raise
            raise mapped from error

    @property
    def connection(self) -> AsyncOpenAI:
        if self._client is None:
            raise EngineDead("the engine is not started")
        return self._client


def _key_from_environment(url: str) -> str:
    return (os.environ.get("OPENAI_API_KEY") if is_openai(url) else None) or "none"
