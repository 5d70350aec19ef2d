"""`POST /v1/chat/completions`: the request becomes a `Job`, and its outcomes the response, whole or streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reason_engine.runtime.outcome import Outcome
from reason_engine.serving.api.answer import (
    finish_reason,
    logprobs_of,
    message_of,
    reason_of,
    tool_calls_of,
    usage_of,
)
from reason_engine.serving.api.openapi import CHAT
from reason_engine.serving.api.pipeline import Job, prepare, run
from reason_engine.serving.api.schema import chat_request
from reason_engine.serving.api.validation import read_object
from reason_engine.serving.service import Service
from reason_engine.serving.streaming.connection import ClientGone, while_connected
from reason_engine.serving.streaming.stream import Chunks, EventStream, Feed


def chat_routes(service: Service) -> APIRouter:
    """The chat route of one server."""
    router = APIRouter()

    @router.post(
        "/v1/chat/completions", openapi_extra=CHAT, response_model=None, summary="Answer a conversation"
    )
    async def chat(request: Request) -> Response:
        """OpenAI's chat completions, with `reasoning` and `budget`; see /v1/strategies for the strategies."""
        service.gate.check()
        body = chat_request(await read_object(request))
        job = prepare(service, body, service.guard.caller(request.scope["headers"]))
        if job.body.stream:
            return _streamed(service, job)
        try:
            outcomes = await while_connected(request.receive, run(service, job))
        except ClientGone:
            return Response(status_code=499)  # nobody reads it
        return JSONResponse(answer(job, service.engine.info.fingerprint, outcomes))

    return router


def answer(job: Job, fingerprint: str, outcomes: list[Outcome]) -> dict[str, Any]:
    """The unstreamed response."""
    choices: list[dict[str, Any]] = []
    for index, outcome in enumerate(outcomes):
        choices.append(
            {
                "index": index,
                "message": message_of(outcome, exclude=job.exclude),
                "logprobs": _logprobs(job, outcome),
                "finish_reason": finish_reason(outcome),
                "reason": reason_of(outcome, job.picked.name),
            }
        )
    return {
        "id": job.id,
        "object": "chat.completion",
        "created": job.created,
        "model": job.model,
        "system_fingerprint": fingerprint,
        "choices": choices,
        "usage": usage_of(outcomes),
        "reason": choices[0]["reason"],
    }


def _logprobs(job: Job, outcome: Outcome) -> dict[str, Any] | None:
    return logprobs_of(outcome.logprobs, job.body.top_logprobs or 0) if job.body.logprobs else None


def _streamed(service: Service, job: Job) -> Response:
    options = job.body.stream_options
    head = {
        "id": job.id,
        "object": "chat.completion.chunk",
        "created": job.created,
        "model": job.model,
        "system_fingerprint": service.engine.info.fingerprint,
    }
    feed = Feed[Outcome](job.n, exclude=job.exclude, events=bool(options and options.include_events))
    chunks = Chunks(head, job.n)

    def last(index: int, outcome: Outcome) -> bytes:
        tools = [{"index": i, **call} for i, call in enumerate(tool_calls_of(outcome.tool_calls))]
        reason = reason_of(outcome, job.picked.name)
        choice = {
            "index": index,
            "delta": {"tool_calls": tools} if tools else {},
            "logprobs": _logprobs(job, outcome),
            "finish_reason": finish_reason(outcome),
            "reason": reason,
        }
        return chunks.chunk([choice], reason=reason) if index == 0 else chunks.chunk([choice])

    def closing(outcomes: Sequence[Outcome]) -> bytes:
        return chunks.chunk([], usage=usage_of(outcomes)) if options and options.include_usage else b""

    return EventStream(
        feed,
        chunks,
        lambda: run(service, job, feed.publish, feed.say, feed.end),
        last,
        closing,
        service.settings.keepalive_seconds,
    )
