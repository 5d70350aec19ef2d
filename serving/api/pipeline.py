"""The one way through the server, for every route that generates.

prepare  a checked body becomes a `Prepared` request; whatever can be refused is refused before the engine is asked
run      admission, the length of the prompts, the operator's rules, then every choice under one budget
close    a choice's outcome as the client may have it; its trace is stored, and the stream hears of its end
account  what the request came to, in the metrics

A route brings its body's schema, its `Work` (what is asked of the engine) and its `Encoder` (how answers are written).
"""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reason_engine.contracts import Engine
from reason_engine.errors import ContextLengthExceeded
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.outcome import Outcome
from reason_engine.runtime.stream_text import Piece
from reason_engine.runtime.trace import Trace
from reason_engine.serving.adapters import AdapterVersion
from reason_engine.serving.api.errors import failure, invalid, unwrap
from reason_engine.serving.api.messages import total_usage
from reason_engine.serving.api.schema import Sampled, stop_strings
from reason_engine.serving.api.stream import ClientGone, Encoder, EventStream, Feed, while_connected
from reason_engine.serving.guard.output_filter import OutputFilter, withheld
from reason_engine.serving.service import Service
from reason_engine.types import Answer, FinishReason, Limits, Sampling, Stopped, TokenLogprob, Usage

SLICE = 16_384
"""Characters that are tokenised between two turns of the event loop."""


class Work(Protocol):
    """What one route asks of the engine for one request."""

    @property
    def strategy(self) -> str | None:
        """The strategy that runs, as metrics name it; None: prompts are continued without one, and leave no trace."""
        ...

    @property
    def field(self) -> str:
        """The field of the body that prompts come in."""
        ...

    def prompts(self) -> Sequence[str]:
        """The texts of the prompt, for a first check of its length."""
        ...

    def asked(self) -> Sequence[str]:
        """Every text of the request, for the operator's rules."""
        ...

    def tasks(self, active: ActiveRequest) -> Iterable[Coroutine[Any, Any, None]]:
        """The work itself; every choice is closed by one of these."""
        ...


# ---------------------------------------------------------------------------------------------------------- prepare


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked request. `width` is the most sequences that it has in the engine at once."""

    id: str
    model: str
    fingerprint: str
    adapter: str | None
    caller: str | None
    """The label that the operator's rules give the key."""
    work: Work
    choices: int
    width: int
    limits: Limits
    stream: bool
    usage: bool
    """Whether a stream ends with the usage."""
    events: bool
    """Whether a stream carries the run's events."""
    exclude: bool
    """Whether the reasoning is left out."""
    created: int = field(default_factory=lambda: int(time.time()))  # noqa: TID251 - a date

    def head(self, kind: str) -> dict[str, Any]:
        """What every object of the answer begins with."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def run_id(self, index: int) -> str:
        """The name of a choice's run; the first has the request's own."""
        return f"{self.id}-{index}" if index else self.id


def prepare(
    service: Service,
    request: Request,
    body: Sampled,
    work: Work,
    *,
    prefix: str,
    adapter: str | None,
    choices: int,
    width: int,
    limits: Limits,
    exclude: bool = False,
) -> Prepared:
    """A request whose fields were checked. `prefix` opens its id."""
    options = body.stream_options
    return Prepared(
        f"{prefix}-{uuid.uuid4().hex}",
        body.model or service.name,
        service.engine.info.fingerprint,
        adapter,
        service.guard.caller(request.scope["headers"]),
        work,
        choices,
        width,
        limits,
        stream=bool(body.stream),
        usage=bool(options and options.include_usage),
        events=bool(options and options.include_events),
        exclude=exclude,
    )


def sampling_of(body: Sampled, param: str, most: int, context: int, logprobs: int | None) -> Sampling:
    """The sampling that a body asks for, `most` tokens at most (0: the rest of the context; `param` names it). Raises
    RequestError where they can never fit."""
    if most > context:
        why = f"allowed: >= 1 and <= {context}, the model's context; got {most}; the nearest valid value is {context}"
        raise invalid(param, why)
    return Sampling(
        max_tokens=most,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=max(0, body.top_k or 0),
        min_p=body.min_p or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=body.repetition_penalty or 1.0,
        logit_bias=tuple((int(token), bias) for token, bias in (body.logit_bias or {}).items()),
        seed=(secrets.randbits(31) if body.seed is None else body.seed) % 2**31,
        stop=stop_strings(body),
        include_stop=bool(body.include_stop_str_in_output),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos),
        logprobs=logprobs,
    )


# -------------------------------------------------------------------------------------------------------------- run


async def respond(service: Service, request: Request, prepared: Prepared, encoder: Encoder) -> Response:
    """Run a prepared request and answer it, whole or streamed."""
    if prepared.stream:
        feed = Feed(prepared.choices, exclude=prepared.exclude, events=prepared.events)
        keepalive = service.settings.keepalive_seconds
        return EventStream(feed, encoder, lambda: run(service, prepared, feed), keepalive)
    try:
        outcomes = await while_connected(request.receive, run(service, prepared))
    except ClientGone:
        return Response(status_code=499)  # nobody reads it
    return JSONResponse(encoder.whole(outcomes))


async def run(service: Service, request: Prepared, feed: Feed | None = None) -> list[Outcome]:
    """Every choice, together, under one budget. Raises the first error, ungrouped."""
    work = request.work
    with service.gate.hold(request.width), service.adapters.use(request.adapter) as adapter:
        started = time.monotonic()
        try:
            await _check_length(work.prompts(), service.engine)
            rule = await service.guard.stops(request.caller, work.asked())
            active = ActiveRequest(service, request, adapter, Budget(request.limits), feed)
            if rule:
                _account_unanswered(service, work, "filtered")
                return active.refuse(rule)
            async with asyncio.TaskGroup() as group:
                over = group.create_task(service.gate.over())
                await asyncio.wait([group.create_task(task) for task in work.tasks(active)])
                over.cancel()
        except asyncio.CancelledError:
            _account_unanswered(service, work, "cancelled")
            raise
        except Exception as error:  # ungroup: what failed first is what the client hears of
            cause = unwrap(error)
            if isinstance(cause, ContextLengthExceeded):
                cause = _too_long(cause.message, work.field)
            _account_unanswered(service, work, cause)
            raise cause from None
        outcomes = active.outcomes()
        _account(service, work, outcomes, time.monotonic() - started)
        return outcomes


async def _check_length(texts: Sequence[str], engine: Engine) -> None:
    """Refuse a prompt that is far too long after tokenising little more than the context, not all of it.

    Prompts near the limit pass here; the run itself counts them exactly. Raises ContextLengthExceeded.
    """
    context = engine.info.context
    if sum(map(len, texts)) <= max(context, SLICE):
        return
    count = 0
    for text in texts:
        for start in range(0, len(text), SLICE):
            count += len(engine.tokenize(text[start : start + SLICE]))
            if count > context + SLICE // 64:
                why = f"the prompt has more than {context} tokens, which is this model's context, answer included"
                raise _too_long(why, None)
            await asyncio.sleep(0)


def _too_long(message: str, param: str | None) -> ContextLengthExceeded:
    return ContextLengthExceeded(message, param=param, code="context_length_exceeded")


class ActiveRequest:
    """A request that was let in: what its work runs with, and where its choices end."""

    def __init__(
        self, service: Service, request: Prepared, adapter: AdapterVersion, budget: Budget, feed: Feed | None
    ) -> None:
        self.service, self.request, self.adapter, self.budget = service, request, adapter, budget
        self._feed = feed
        self._outcomes: dict[int, Outcome] = {}
        self.filters: tuple[OutputFilter, ...] = tuple(
            service.guard.output_filter(
                request.caller, feed and feed.text_of(index), feed and feed.events_of(index)
            )
            for index in range(request.choices)
        )
        """What stands between each choice and the client."""

    def seconds_left(self) -> float | None:
        """Until the deadline of its budget."""
        deadline = self.budget.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def outcomes(self) -> list[Outcome]:
        """Those of all choices, once all are closed."""
        return [self._outcomes[index] for index in range(self.request.choices)]

    async def close(self, index: int, outcome: Outcome) -> None:
        """End a choice with its outcome as the client may have it."""
        self._end(index, await self.filters[index].close(outcome, self.service.engine))

    def closed(self, index: int) -> bool:
        """Whether a choice has ended."""
        return index in self._outcomes

    def refuse(self, rule: str) -> list[Outcome]:
        """End every choice of a request that a rule stopped before anything ran."""
        message = self.service.guard.message
        for index in range(self.request.choices):
            if message and self._feed:
                self._feed.text_of(index)(Piece("content", message))
            nothing = text_outcome(self.request.run_id(index), "", "content_filter", stopped="cancelled")
            self._end(index, replace(withheld(nothing, rule), content=message))
        return self.outcomes()

    def _end(self, index: int, outcome: Outcome) -> None:
        self._outcomes[index] = outcome
        if self.request.work.strategy is not None:
            self.service.traces.put(outcome.id, outcome.trace)
        if self._feed:
            self._feed.end(index, outcome)


def text_outcome(
    run_id: str,
    text: str,
    finish_reason: FinishReason,
    usage: Usage | None = None,
    logprobs: Sequence[TokenLogprob] = (),
    stopped: Stopped = "done",
) -> Outcome:
    """The outcome of a text that no strategy made."""
    return Outcome(
        run_id, text, None, (), finish_reason, Answer(), stopped, usage or Usage(), {}, 0, 0, 0, 0.0,
        Trace((), {"id": run_id}), tuple(logprobs),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- account


def _account(service: Service, work: Work, outcomes: list[Outcome], seconds: float) -> None:
    """A request that got its answer."""
    if work.strategy is None:
        service.metrics.drafts(total_usage(outcomes))
    else:
        service.metrics.answered(work.strategy, outcomes, seconds)


def _account_unanswered(service: Service, work: Work, why: str | BaseException) -> None:
    """A request that was let in and got no answer."""
    if work.strategy is None:
        return
    if isinstance(why, BaseException):
        why = "refused" if failure(why).status < 500 else "error"
    service.metrics.unanswered(work.strategy, why)
