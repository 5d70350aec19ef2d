"""`POST /v1/completions`: plain text continued, without template or strategy, for tools that measure models.

Prompts given as token ids are turned into text first, since ids that the model has not must never reach it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, cast

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reason_engine.contracts import Engine
from reason_engine.errors import CapabilityMissing, ContextLengthExceeded, RequestError, first_error
from reason_engine.runtime.stream_text import Piece
from reason_engine.serving.api.openapi import COMPLETION
from reason_engine.serving.api.pick import split_model
from reason_engine.serving.api.prompts import check_length, sampled
from reason_engine.serving.api.schema import CompletionRequest, completion_request
from reason_engine.serving.api.validation import as_list, read_object
from reason_engine.serving.guard.output_filter import Screen
from reason_engine.serving.service import Service
from reason_engine.serving.streaming.connection import ClientGone, while_connected
from reason_engine.serving.streaming.stream import EventStream, Feed, TextChunks
from reason_engine.types import Chunk, GenerateRequest, Problem, Sampling, TokenLogprob, Usage

DEFAULT_TOKENS = 16


@dataclass
class Draft:
    """One choice while it grows."""

    text: str = ""
    finish: str = "length"
    usage: Usage = field(default_factory=Usage)
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])


@dataclass(frozen=True, slots=True)
class Job:
    """A checked request: every prompt is continued n times."""

    head: dict[str, Any]
    prompts: tuple[str, ...]
    n: int
    echo: bool
    sampling: Sampling
    adapter: str | None
    caller: str | None


def completion_routes(service: Service) -> APIRouter:
    """The route of one server."""
    router = APIRouter()

    @router.post("/v1/completions", openapi_extra=COMPLETION, response_model=None, summary="Continue a text")
    async def completions(request: Request) -> Response:
        """OpenAI's plain completions; no strategy runs here."""
        service.gate.check()
        body = completion_request(await read_object(request))
        job = _prepare(service, body, service.guard.caller(request.scope["headers"]))
        if body.stream:
            return _streamed(service, job, bool(body.stream_options and body.stream_options.include_usage))
        try:
            drafts = await while_connected(
                request.receive, _run(service, job, lambda index: lambda piece: None)
            )
        except ClientGone:
            return Response(status_code=499)  # nobody reads it
        choices = [_choice(job, index, draft, draft.text) for index, draft in enumerate(drafts)]
        return JSONResponse({**job.head, "choices": choices, "usage": _usage(drafts)})

    return router


def _prepare(service: Service, body: CompletionRequest, caller: str | None) -> Job:
    engine, settings = service.engine, service.settings
    adapter, _ = split_model(body.model, service.name, service.adapters.names())
    prompts, n = _prompts(body.prompt, engine), body.n or 1
    if n * len(prompts) > settings.max_width:
        raise RequestError(
            f"n: {len(prompts)} prompts x {n} are more than the {settings.max_width} sequences that this server allows",
            param="n" if n > 1 else "prompt",
            code="invalid_value",
        )
    most = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
    if n * len(prompts) * most > settings.max_tokens:
        raise RequestError(
            f"max_tokens: {n * len(prompts)} sequences of {most} tokens are over this server's {settings.max_tokens} "
            f"for one request; the nearest valid value is {settings.max_tokens // (n * len(prompts))}",
            param="max_tokens",
            code="invalid_value",
        )
    if body.logprobs is not None and engine.caps.logprobs < body.logprobs:
        raise CapabilityMissing(
            f"logprobs: this engine reports at most {max(0, engine.caps.logprobs)}", param="logprobs"
        )
    head = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),  # noqa: TID251 - a date
        "model": body.model or service.name,
        "system_fingerprint": engine.info.fingerprint,
    }
    sampling = sampled(body, "max_tokens", most, engine.info.context, body.logprobs)
    return Job(head, prompts, n, bool(body.echo), sampling, adapter, caller)


def _prompts(value: object, engine: Engine) -> tuple[str, ...]:
    """The prompts as texts. Raises RequestError for anything else."""
    items = [value] if isinstance(value, str) else as_list(value)
    if items and all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        items = [items]
    prompts: list[str] = []
    for item in items or ():
        ids = as_list(item)
        if isinstance(item, str) and item:
            prompts.append(item)
        elif ids and all(
            isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in ids
        ):
            try:
                prompts.append(engine.detokenize(cast("list[int]", ids)))
            except (IndexError, KeyError, OverflowError, TypeError, ValueError):
                raise _wrong("holds a token id that this model has not") from None
        else:
            raise _wrong("must be a text, a list of texts, or lists of token ids, none of them empty")
    if not prompts:
        raise _wrong("is empty")
    return tuple(prompts)


def _wrong(why: str) -> RequestError:
    return RequestError(f"prompt: {why}", param="prompt", code="invalid_value")


async def _run(
    service: Service,
    job: Job,
    say: Callable[[int], Callable[[Piece], None]],
    end: Callable[[int, Draft], None] = lambda index, draft: None,
) -> list[Draft]:
    """Continue every prompt, together. The operator's time limit cuts what still runs, and the rules what they stop."""
    guard = service.guard
    drafts = [Draft() for _ in range(job.n * len(job.prompts))]
    screens = [guard.screen(job.caller, say(index), None) for index in range(len(drafts))]

    async def one(place: int, prompt: str) -> None:
        here = range(place * job.n, (place + 1) * job.n)
        if job.echo:
            for index in here:
                drafts[index].text = prompt
                screens[index].say(Piece("content", prompt))
        # Each prompt's first sample has a seed of its own.
        seed = job.sampling.seed + place * job.n
        if not screens[here[0]].active:
            await some(f"{place}", prompt, here, seed)
            return
        # A sample that a rule stops is aborted alone, so each is a request of its own.
        async with asyncio.TaskGroup() as group:
            for index in here:
                group.create_task(
                    some(f"{place}-{index}", prompt, range(index, index + 1), seed + index - here[0])
                )

    async def some(name: str, prompt: str, indices: range, seed: int) -> None:
        sampling = replace(job.sampling, seed=seed % 2**31)
        request = GenerateRequest(f"{job.head['id']}-{name}", prompt, len(indices), sampling, used.name)
        chunks = service.engine.generate(request)
        async with aclosing(chunks):  # pyright: ignore[reportArgumentType]
            async for chunk in chunks:
                index = indices[chunk.index]
                draft, screen = drafts[index], screens[index]
                _take(draft, chunk, counted=index % job.n == 0 or not screen.active)
                if chunk.text:
                    screen.say(Piece("content", chunk.text))
                if chunk.finish_reason or screen.halted():
                    draft.finish = "stop" if chunk.finish_reason == "stop" else "length"
                    await _close(draft, screen)
                    end(index, draft)
                    if screen.halted():
                        return

    with service.gate.hold(len(drafts)), service.adapters.use(job.adapter) as used:
        try:
            for prompt in job.prompts:
                await check_length(Problem(prompt), service.engine)
            if await guard.stops(job.caller, [*job.prompts, *job.sampling.stop]):
                return _refused(drafts, guard.message, say, end)
            async with asyncio.timeout(service.settings.max_seconds), asyncio.TaskGroup() as group:
                for place, prompt in enumerate(job.prompts):
                    group.create_task(one(place, prompt))
        except TimeoutError:
            for draft, screen in zip(drafts, screens, strict=True):
                await _close(draft, screen)
        except BaseExceptionGroup as error:
            raise _of_prompt(first_error(error)) from None
        except ContextLengthExceeded as error:
            raise _of_prompt(error) from None
    service.metrics.checked(_total(drafts))
    return drafts


async def _close(draft: Draft, screen: Screen) -> None:
    """The draft as the client may have it; a second time changes nothing."""
    if await screen.end():
        draft.text, draft.finish = screen.shown("content"), "content_filter"
        draft.logprobs.clear()


def _take(draft: Draft, chunk: Chunk, *, counted: bool) -> None:
    """Add a chunk to its draft. `counted`: this draft's request accounts for the prompt."""
    draft.text += chunk.text
    draft.logprobs.extend(chunk.logprobs)
    draft.usage += Usage(
        chunk.prompt_tokens if counted else 0,
        chunk.cached_tokens if counted else 0,
        chunk.token_count,
        chunk.draft_accepted,
        chunk.draft_rejected,
    )


def _refused(
    drafts: list[Draft],
    message: str,
    say: Callable[[int], Callable[[Piece], None]],
    end: Callable[[int, Draft], None],
) -> list[Draft]:
    """Every choice of a request that a rule stopped."""
    for index, draft in enumerate(drafts):
        draft.text, draft.finish = message, "content_filter"
        if message:
            say(index)(Piece("content", message))
        end(index, draft)
    return drafts


def _of_prompt(error: BaseException) -> BaseException:
    """What chat calls messages is called prompt here."""
    if isinstance(error, ContextLengthExceeded):
        return ContextLengthExceeded(error.message, param="prompt", code="context_length_exceeded")
    return error


def _choice(job: Job, index: int, draft: Draft, text: str) -> dict[str, Any]:
    logprobs = _logprobs(draft.logprobs) if job.sampling.logprobs is not None else None
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": draft.finish}


def _logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    offsets, at = list[int](), 0
    for token in tokens:
        offsets.append(at)
        at += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{text: value for _, text, value in token.top} for token in tokens],
        "text_offset": offsets,
    }


def _usage(drafts: Sequence[Draft]) -> dict[str, Any]:
    total = _total(drafts)
    return {
        "prompt_tokens": total.prompt,
        "completion_tokens": total.completion,
        "total_tokens": total.prompt + total.completion,
        "prompt_tokens_details": {"cached_tokens": total.cached},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "accepted_prediction_tokens": total.draft_accepted,
            "rejected_prediction_tokens": total.draft_rejected,
        },
    }


def _total(drafts: Sequence[Draft]) -> Usage:
    return sum((draft.usage for draft in drafts), Usage())


def _streamed(service: Service, job: Job, with_usage: bool) -> Response:
    feed = Feed[Draft](job.n * len(job.prompts), exclude=False, events=False)
    chunks = TextChunks(job.head)
    return EventStream(
        feed,
        chunks,
        lambda: _run(service, job, feed.say, feed.end),
        lambda index, draft: chunks.chunk([_choice(job, index, draft, "")]),
        lambda drafts: chunks.chunk([], usage=_usage(drafts)) if with_usage else b"",
        service.settings.keepalive_seconds,
    )
