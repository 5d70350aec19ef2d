"""Who answers: the strategy run in this process, or a server asked over HTTP. Both give the same `Reply`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlsplit

from reason_engine.answers import Equality, find, normalise
from reason_engine.contracts import Engine, Retriever
from reason_engine.errors import (
    ContextLengthExceeded,
    EngineBusy,
    EngineDead,
    EngineError,
    RequestError,
    SetupError,
)
from reason_engine.evals.spec import Spec, build
from reason_engine.profile import Profile
from reason_engine.runtime.solve import solve
from reason_engine.strategies import strategies
from reason_engine.types import Limits, Problem, Sampling

if TYPE_CHECKING:
    from httpx2 import AsyncClient


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer and its cost. `prompt_tokens` are those of internal calls that no prefix cache held."""

    answer: str | None
    text: str
    completion_tokens: int
    prompt_tokens: int
    seconds: float
    stopped: str
    samples: int


class Solver(Protocol):
    """Answers one problem by one strategy."""

    name: str

    async def answer(self, problem: Problem, spec: Spec, seed: int) -> Reply: ...


class InProcess:
    """Runs strategies on an engine that is already started."""

    def __init__(
        self,
        engine: Engine,
        profile: Profile,
        equality: Equality,
        limits: Limits | None = None,
        max_tokens: int = 0,
        name: str | None = None,
        knowledge: Retriever | None = None,
    ) -> None:
        self.engine, self.profile, self.equality, self.knowledge = engine, profile, equality, knowledge
        self.limits, self.sampling = limits or Limits(), Sampling(max_tokens=max_tokens)
        self.name = name or engine.info.name

    async def answer(self, problem: Problem, spec: Spec, seed: int) -> Reply:
        """Raises what `solve` raises."""
        began = time.monotonic()
        outcome = await solve(
            build(strategies, spec),
            problem,
            self.engine,
            profile=self.profile,
            limits=self.limits,
            sampling=self.sampling,
            seed=seed,
            equality=self.equality,
            knowledge=self.knowledge,
        )
        used = outcome.usage
        seconds = time.monotonic() - began
        prompt = used.prompt - used.cached
        return Reply(
            outcome.answer.value,
            outcome.content,
            used.completion,
            prompt,
            seconds,
            outcome.stopped,
            outcome.samples,
        )


class OverHttp:
    """Asks an OpenAI-compatible server. One without the `reason` object is read by its content and its usage."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        limits: Limits | None = None,
        max_tokens: int = 0,
        http_client: AsyncClient | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise SetupError(f"--url {url!r} is no address; one looks like http://127.0.0.1:8000")
        self.url = url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")
        self.name, self._key, self._http = model or "", api_key, http_client
        budget = (
            {"tokens": limits.tokens, "seconds": limits.seconds, "samples": limits.samples} if limits else {}
        )
        self._budget = {key: value for key, value in budget.items() if value is not None}
        self._max_tokens = max_tokens

    async def __aenter__(self) -> Self:
        """Connect; the first listed model is asked where none was named."""
        from openai import APIError, AsyncOpenAI

        self._client = AsyncOpenAI(
            base_url=self.url, api_key=self._key or "none", timeout=600, http_client=self._http
        )
        try:
            if not self.name:
                models = await self._client.models.list()
                if not models.data:
                    raise SetupError(f"{self.url} lists no model; name one with --model")
                self.name = models.data[0].id
        except APIError as error:
            await self._client.close()
            raise _translate(error, self.url) from None
        except SetupError:
            await self._client.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def answer(self, problem: Problem, spec: Spec, seed: int) -> Reply:
        """Raises RequestError for what the server refuses, EngineError for what fails there."""
        from openai import APIError, omit

        body: dict[str, Any] = {"reasoning": {"strategy": spec.name, **spec.params}}
        if self._budget:
            body["budget"] = self._budget
        began = time.monotonic()
        try:
            completion = await self._client.chat.completions.create(
                model=self.name,
                messages=[{"role": "user", "content": problem.question}],
                seed=seed,
                max_completion_tokens=self._max_tokens or omit,
                extra_body=body,
            )
        except APIError as error:
            raise _translate(error, self.url) from None
        return _reply(completion.to_dict(), time.monotonic() - began)


def _reply(data: Mapping[str, Any], seconds: float) -> Reply:
    usage: Mapping[str, Any] = data.get("usage") or {}
    text: str = data["choices"][0]["message"].get("content") or ""
    reason: Mapping[str, Any] | None = data.get("reason")
    if reason is None:
        found = find(text)
        prompt = usage.get("prompt_tokens", 0) - (
            (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        )
        answer = None if found is None else normalise(found)
        return Reply(answer, text, usage.get("completion_tokens", 0), prompt, seconds, "done", 1)
    stages = reason["usage_by_stage"].values()
    prompt = sum(stage["prompt"] - stage["cached"] for stage in stages)
    return Reply(
        reason["answer"],
        text,
        usage["completion_tokens"],
        prompt,
        seconds,
        reason["stopped"],
        reason["samples"],
    )


def _translate(error: Exception, url: str) -> Exception:
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIConnectionError):
        return EngineDead(f"no server answers at {url}: {error.__cause__ or error}")
    if not isinstance(error, APIStatusError):
        return EngineError(f"{url}: {error}")
    body = error.body if isinstance(error.body, dict) else {}
    message, param = str(body.get("message") or error.message), body.get("param")
    if error.status_code in (401, 403):
        return SetupError(f"{url} refuses the key: {message}; set REASON_API_KEY")
    if error.status_code == 429:
        return EngineBusy(f"{url}: {message}")
    if error.status_code >= 500:
        return EngineError(f"{url}: {error.status_code}: {message}")
    if body.get("code") == "context_length_exceeded":
        return ContextLengthExceeded(message, param=param, code="context_length_exceeded")
    return RequestError(message, param=param, code=str(body.get("code") or "invalid_request"))
