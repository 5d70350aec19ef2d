"""Asks a question, of a model in this process or of a running server; both answer with the same `Reply`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from reason_engine.cli.terminal import client_of
from reason_engine.errors import EngineDead, EngineError, RequestError, SetupError
from reason_engine.runtime.trace import Event, Trace, from_json
from reason_engine.types import Limits, Message, Problem

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from reason_engine.contracts import Engine, Powers
    from reason_engine.knowledge import Library
    from reason_engine.profile import Profile
    from reason_engine.strategies import Strategy

Publish = Callable[[Event], None]


def ignore(_: Event) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class AskOptions:
    """How one question is to be answered; `values` are the options of the strategy."""

    strategy: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    limits: Limits = field(default_factory=Limits)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, in the terms of the API: `reason` and `usage` are its objects of that name."""

    content: str
    reasoning: str | None
    reason: Mapping[str, Any]
    usage: Mapping[str, Any]
    trace: Trace


class Asker(Protocol):
    """Where questions go. Used as an async context manager; `publish` gets the events of a run."""

    async def __aenter__(self) -> Asker: ...
    async def __aexit__(self, *why: object) -> None: ...
    async def ask(self, turns: Sequence[Message], options: AskOptions, *, publish: Publish = ignore) -> Reply: ...


def asker(
    options: AskOptions,
    model: str | None,
    url: str | None,
    engine: str,
    threads: int | None,
    knowledge: Path | None,
    parsers: tuple[str | None, str | None] = (None, None),
) -> Asker:
    """The server at `url`, else an engine of one's own, with the documents of `knowledge` and the named `parsers` of
    thoughts and tool calls. Raises SetupError, or for options that no strategy has RequestError, before anything heavy
    is loaded."""
    if model and url:
        raise SetupError("--model and --url exclude each other: a server has its own model")
    if url:
        if knowledge:
            raise SetupError("--knowledge and --url exclude each other: a server has its own documents")
        if any(parsers):
            raise SetupError("a parser and --url exclude each other: a server reads its own model")
        return Remote(url)
    pick_strategy(options)

    from reason_engine.contracts import Powers
    from reason_engine.engines.open import open_engine, profile_of
    from reason_engine.settings import load_settings
    from reason_engine.verifiers.code import Sandbox

    named = {"reasoning_parser": parsers[0], "tool_parser": parsers[1], "knowledge": knowledge}
    settings = load_settings({"model": model, "engine": engine, "threads": threads, **named})
    powers = Powers(Sandbox() if settings.code_execution else None, settings.satisfaction)
    local = open_engine(settings, inline=True)
    library = None
    if settings.knowledge:
        from reason_engine.knowledge import Library

        library = Library(settings.knowledge, engine=local, model=settings.knowledge_model)
    return Local(local, profile_of(settings), powers, library)


@dataclass(frozen=True)
class Local:
    """An engine in this process. Documents are used unless the strategy's `knowledge` is set to false."""

    engine: Engine
    profile: Profile
    powers: Powers | None = None
    library: Library | None = None

    async def __aenter__(self) -> Local:
        await self.engine.start()
        if self.library:
            await self.library.open()
        return self

    async def __aexit__(self, *why: object) -> None:
        await self.engine.close()

    async def ask(self, turns: Sequence[Message], options: AskOptions, *, publish: Publish = ignore) -> Reply:
        """Run the strategy here. Raises what `solve` raises."""
        from reason_engine.runtime.solve import solve
        from reason_engine.serving.api.messages import reason_of, usage_of

        if self.library:
            options = replace(options, values={"knowledge": True, **options.values})
        strategy = pick_strategy(options)
        outcome = await solve(
            strategy, Problem(turns[-1].content, tuple(turns[:-1])), self.engine, profile=self.profile,
            limits=options.limits, seed=options.seed, powers=self.powers, knowledge=self.library, publish=publish,
        )  # fmt: skip
        reason = reason_of(outcome, strategy.title)
        return Reply(outcome.content, outcome.reasoning, reason, usage_of([outcome]), outcome.trace)


class Remote:
    """A server of ours, through the `openai` client. The key is read from REASON_API_KEY."""

    def __init__(self, url: str) -> None:
        self._url, self._model = url, ""
        self._client: AsyncOpenAI | None = None

    async def __aenter__(self) -> Remote:
        from openai import APIConnectionError, APIStatusError

        self._client, base = client_of(self._url)
        try:
            self._model = (await self._client.models.list()).data[0].id
        except APIConnectionError:
            raise EngineDead(f"no server answers at {base}") from None
        except (APIStatusError, IndexError) as error:
            raise EngineError(f"{base}: {error}") from None
        return self

    async def __aexit__(self, *why: object) -> None:
        if self._client:
            await self._client.close()

    async def ask(self, turns: Sequence[Message], options: AskOptions, *, publish: Publish = ignore) -> Reply:
        """Stream the answer with its events. Raises RequestError where the server refuses, else EngineError."""
        from openai import APIError, APIStatusError

        answer = _StreamedAnswer(publish)
        try:
            async for chunk in await self._open(turns, options):
                answer.add(chunk.to_dict())
        except APIStatusError as error:
            if error.status_code < 500 and error.status_code != 429:
                raise RequestError(error.message, param=error.param, code=error.code or "invalid_request") from None
            raise EngineError(error.message) from None
        except APIError as error:
            raise EngineError(error.message) from None
        return answer.reply()

    async def _open(self, turns: Sequence[Message], options: AskOptions) -> Any:
        if self._client is None:
            raise EngineDead("not connected")
        named = {"strategy": options.strategy} if options.strategy else {}
        messages: Any = [{"role": turn.role, "content": turn.content} for turn in turns]
        return await self._client.chat.completions.create(
            model=self._model,
            messages=messages,
            stream=True,
            seed=options.seed,
            extra_body={
                "reasoning": {**named, **options.values},
                "budget": {key: value for key, value in asdict(options.limits).items() if value is not None},
                "stream_options": {"include_usage": True, "include_events": True},
            },
        )


class _StreamedAnswer:
    """Joins the chunks of a streamed answer."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._events: list[Event] = []
        self._texts: dict[str, list[str]] = {"content": [], "reasoning": []}
        self._reason: Mapping[str, Any] = {}
        self._usage: Mapping[str, Any] = {}

    def add(self, chunk: Mapping[str, Any]) -> None:
        self._add_reason(chunk.get("reason"))
        self._usage = chunk.get("usage") or self._usage
        choices: list[dict[str, Any]] = chunk.get("choices") or []
        for choice in choices:
            self._add_reason(choice.get("reason"))
            delta: dict[str, Any] = choice.get("delta") or {}
            for name, texts in self._texts.items():
                texts.append(delta.get(name) or "")

    def _add_reason(self, reason: dict[str, Any] | None) -> None:
        """Events while it runs; the account of the run in its last chunk."""
        for value in (reason or {}).get("events", ()):
            event = from_json(value)
            self._events.append(event)
            self._publish(event)
        if reason and "strategy" in reason:
            self._reason = reason

    def reply(self) -> Reply:
        trace = Trace.from_events(self._events, {"answer": self._reason.get("answer")})
        content, reasoning = ("".join(self._texts[name]) for name in ("content", "reasoning"))
        return Reply(content, reasoning or None, self._reason, self._usage, trace)


def pick_strategy(options: AskOptions) -> Strategy:
    """The strategy that a request with these options would get. Raises RequestError as the server does."""
    from reason_engine.serving.api.schema import choose_strategy

    named = {"strategy": options.strategy} if options.strategy else {}
    return choose_strategy({**options.values, **named}, None, None, None).strategy
