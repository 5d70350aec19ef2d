"""Who answers: the strategy run in this process, or a server asked over HTTP. Both give the same `Reply`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from reason_engine.answers import Equality, find, infer, normalise, read
from reason_engine.contracts import Engine, Powers, Retriever
from reason_engine.data.synthesize.teacher import api_address
from reason_engine.errors import ContextLengthExceeded, EngineBusy, EngineDead, EngineError, RequestError, SetupError
from reason_engine.evals.datasets import kind_of
from reason_engine.evals.spec import Spec, build
from reason_engine.profile import Profile
from reason_engine.runtime.solve import solve
from reason_engine.strategies import strategies
from reason_engine.types import Limits, Problem, Sampling

if TYPE_CHECKING:
    from httpx2 import AsyncClient


@dataclass(frozen=True, slots=True)
class EvalTarget:
    """A model in this process, or with `url` a running server. `limits` bound each problem, `max_tokens` each path;
    `knowledge` is the folder of documents that strategies with `knowledge=true` retrieve from. `allow_code`: programs
    that a model writes may run here, in the sandbox: those that a task tests, and those of votes and verifiers."""

    model: str | None = None
    url: str | None = None
    engine: str = "auto"
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)
    max_tokens: int = 0
    api_key: str | None = None
    knowledge: Path | None = None
    reasoning_parser: str | None = None
    tool_parser: str | None = None
    allow_code: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer and its cost. `prompt_tokens` are those of internal calls that no prefix cache held. `unread` and
    `cut`: of its paths those without a readable answer and those that a limit ended; None where nobody counted.
    `paths`: the answer and the content of each, where they can be told."""

    answer: str | None
    text: str
    completion_tokens: int
    prompt_tokens: int
    seconds: float
    stopped: str
    samples: int
    unread: int | None = None
    cut: int | None = None
    paths: tuple[tuple[str | None, str], ...] | None = None


class Solver(Protocol):
    """Answers one problem by one strategy, while it is entered as a context. `name` is what reports call the model;
    `equality` compares its answers."""

    @property
    def name(self) -> str: ...
    @property
    def equality(self) -> Equality: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *error: object) -> None: ...
    async def answer(self, problem: Problem, spec: Spec, seed: int) -> Reply: ...


@dataclass(frozen=True)
class LocalSolver:
    """Runs strategies on an engine, which starts and ends with the context. `max_tokens` bounds each path; `powers`:
    what verifiers and votes may do on this machine."""

    engine: Engine
    profile: Profile
    equality: Equality = field(default_factory=Equality)
    limits: Limits = field(default_factory=Limits)
    max_tokens: int = 0
    name: str = ""
    knowledge: Retriever | None = None
    powers: Powers = field(default_factory=Powers)

    async def __aenter__(self) -> Self:
        await self.engine.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            await self.engine.close()
        finally:
            await self.equality.close()

    async def answer(self, problem: Problem, spec: Spec, seed: int) -> Reply:
        """Raises what `solve` raises."""
        began, sampling = time.monotonic(), Sampling(max_tokens=self.max_tokens)
        outcome = await solve(
            build(strategies, spec), problem, self.engine, profile=self.profile, limits=self.limits,
            sampling=sampling, seed=seed, equality=self.equality, knowledge=self.knowledge, powers=self.powers,
        )  # fmt: skip
        used, seconds, parse = outcome.usage, time.monotonic() - began, self.engine.parse
        return Reply(
            outcome.answer.value, outcome.content, used.completion, used.prompt - used.cached, seconds,
            outcome.stopped, outcome.samples, outcome.unread, outcome.cut,
            tuple((path.answer, parse(path.text, prompt=path.prompt).content) for path in outcome.paths),
        )  # fmt: skip


def budget_of(limits: Limits) -> dict[str, float]:
    """The limits that are set, as a request's `budget` names them."""
    known = {"tokens": limits.tokens, "seconds": limits.seconds, "samples": limits.samples}
    return {key: value for key, value in known.items() if value is not None}


class RemoteSolver:
    """Asks an OpenAI-compatible server. One without the `reason` object is read by its content and its usage."""

    def __init__(self, target: EvalTarget, http_client: AsyncClient | None = None) -> None:
        self.url = api_address(target.url or "")
        self.name, self.equality = target.model or "", Equality()
        self._target, self._http = target, http_client

    async def __aenter__(self) -> Self:
        """Connect; the first listed model is asked where none was named."""
        from openai import APIError, AsyncOpenAI

        key = self._target.api_key or "none"
        self._client = AsyncOpenAI(base_url=self.url, api_key=key, timeout=600, http_client=self._http)
        try:
            models = [] if self.name else (await self._client.models.list()).data
        except APIError as error:
            await self._client.close()
            raise _translate(error, self.url) from None
        if not self.name and not models:
            await self._client.close()
            raise SetupError(f"{self.url} lists no model; name one with --model")
        self.name = self.name or models[0].id
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.equality.close()
        await self._client.close()

    async def answer(self, problem: Problem, spec: Spec, seed: int) -> Reply:
        """Raises RequestError for what the server refuses, EngineError for what fails there."""
        from openai import APIError, omit

        body: dict[str, Any] = {"reasoning": {"strategy": spec.name, **spec.params}}
        if budget := budget_of(self._target.limits):
            body["budget"] = budget
        began = time.monotonic()
        try:
            completion = await self._client.chat.completions.create(
                model=self.name, messages=[{"role": "user", "content": problem.question}], seed=seed,
                max_completion_tokens=self._target.max_tokens or omit, extra_body=body,
            )  # fmt: skip
        except APIError as error:
            raise _translate(error, self.url) from None
        return _reply(problem, completion.to_dict(), time.monotonic() - began)


def _reply(problem: Problem, data: Mapping[str, Any], seconds: float) -> Reply:
    usage: Mapping[str, Any] = data.get("usage") or {}
    text: str = data["choices"][0]["message"].get("content") or ""
    reason: Mapping[str, Any] | None = data.get("reason")
    if reason is None:
        answer = _answer(problem, text, cut=data["choices"][0].get("finish_reason") == "length")
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        prompt, completion = usage.get("prompt_tokens", 0) - cached, usage.get("completion_tokens", 0)
        return Reply(answer, text, completion, prompt, seconds, "done", 1)
    prompt = sum(stage["prompt"] - stage["cached"] for stage in reason["usage_by_stage"].values())
    counted = reason["stopped"], reason["samples"], reason.get("unread"), reason.get("cut")
    return Reply(reason["answer"], text, usage["completion_tokens"], prompt, seconds, *counted)


def _answer(problem: Problem, text: str, *, cut: bool) -> str | None:
    """The answer in a plain reply: of the kind that the task knows; else as it is marked, else as the question wants
    it."""
    spec, kind = infer(problem.question), kind_of(problem)
    marked = find(text) if kind is None else None
    if marked is not None:
        return normalise(marked)
    found = read(text, spec if kind is None else replace(spec, kind=kind), cut=cut)
    return found and found.value


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
