"""The one request pipeline of every route that generates.

prepare  a checked body becomes a `Prepared` request; whatever can be refused is refused before the engine is asked
run      admission, the length of the prompts, the operator's rules, then every choice under one budget
close    a choice's outcome as the client may have it; its trace is stored, its stream ends
account  what the request came to, in the metrics

A route brings the schema of its body, its kind of `Prepared` (what is asked of the engine) and its `Encoder` (how
answers are written).
"""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reason_engine.contracts import Engine
from reason_engine.errors import ContextLengthExceeded, first_error
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.prompts import PromptCache
from reason_engine.runtime.solve import Outcome, ignore
from reason_engine.runtime.stream_text import Piece
from reason_engine.runtime.trace import Trace
from reason_engine.serving.adapters import BASE, AdapterVersion
from reason_engine.serving.api.errors import failure, invalid
from reason_engine.serving.api.messages import total_usage
from reason_engine.serving.api.schema import Budget as BudgetRequest
from reason_engine.serving.api.schema import Sampled, stop_strings
from reason_engine.serving.api.stream import ClientGone, Encoder, EventStream, Feed, PassThrough, while_connected
from reason_engine.serving.guard.output_filter import OutputFilter, withheld
from reason_engine.serving.service import Service
from reason_engine.settings import Settings
from reason_engine.strategies import Strategy
from reason_engine.types import Answer, FinishReason, Limits, Sampling, TokenLogprob, Usage

SLICE = 16_384
"""Characters that are tokenised between two turns of the event loop."""


# prepare ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(ABC):
    """A checked request. `prompt_field` is where its body has the prompt; `prefix` opens its id."""

    prefix: ClassVar[str]
    prompt_field: ClassVar[str]

    service: Service
    body: Sampled
    caller: str | None
    """The label that the operator's rules give the key."""
    adapter: str | None
    sampling: Sampling
    limits: Limits
    choices: int
    width: int
    """The most sequences that it has in the engine at once."""
    exclude: bool = False
    """Whether the reasoning is left out."""
    number: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))  # noqa: TID251 - a date

    @property
    def id(self) -> str:
        return f"{self.prefix}-{self.number}"

    @property
    def strategy(self) -> str | None:
        """The strategy that runs, as metrics name it; None: prompts are continued without one, and leave no trace."""
        return None

    @abstractmethod
    def prompts(self) -> Sequence[str]:
        """The texts of the prompt, for a first check of its length."""

    @abstractmethod
    def asked(self) -> Sequence[str]:
        """Every text of the request, for the operator's rules."""

    @abstractmethod
    def tasks(self, active: ActiveRequest) -> Iterable[Coroutine[Any, Any, None]]:
        """The work itself; every choice is closed by one of these."""

    def run_id(self, index: int) -> str:
        """The name of a choice's run; the first has the request's own."""
        return f"{self.id}-{index}" if index else self.id

    def head(self, kind: str) -> dict[str, Any]:
        """What every object of the answer begins with."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.body.model or self.service.name,
            "system_fingerprint": self.service.engine.info.fingerprint,
        }


def sampling_of(body: Sampled, param: str, most: int, context: int, logprobs: int | None) -> Sampling:
    """The sampling that a body asks for, `most` tokens at most (0: the rest of the context; `param` names it). Raises
    RequestError where they can never fit."""
    if most > context:
        why = f"allowed: >= 1 and <= {context}, the model's context; got {most}; the nearest valid value is {context}"
        raise invalid(param, why)
    return Sampling(
        max_tokens=most, temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p, top_k=max(0, body.top_k or 0), min_p=body.min_p or 0.0,
        presence_penalty=body.presence_penalty or 0.0, frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=body.repetition_penalty or 1.0,
        logit_bias=tuple((int(token), bias) for token, bias in (body.logit_bias or {}).items()),
        seed=(secrets.randbits(31) if body.seed is None else body.seed) % 2**31, stop=stop_strings(body),
        include_stop=bool(body.include_stop_str_in_output), stop_token_ids=tuple(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos), logprobs=logprobs,
    )  # fmt: skip


def check_width(n: int, strategy: Strategy, settings: Settings) -> int:
    """The sequences that a request needs: n times the strategy's width. Raises RequestError over the operator's cap."""
    if n > settings.max_n:
        raise invalid(
            "n", f"allowed: >= 1 and <= {settings.max_n}; got {n}; the nearest valid value is {settings.max_n}"
        )
    one = strategy.width
    if n * one > settings.max_width:
        option = "n" if "n" in type(strategy).model_fields else "k"
        fitting = f"; the nearest valid value is {max(1, settings.max_width // one)}" if n > 1 else ""
        raise invalid(
            "n" if n > 1 else f"reasoning.{option}",
            f"{n} x {one} paths at once; this server allows {settings.max_width} for one request{fitting}",
        )
    return n * one


def limits_of(budget: BudgetRequest | None, settings: Settings) -> Limits:
    """The request's budget under the operator's caps. Raises RequestError (400) for a value above its cap."""
    given = budget or BudgetRequest()
    return Limits(
        int(_capped("tokens", given.tokens, settings.max_tokens)),
        _capped("seconds", given.seconds, settings.max_seconds),
        int(_capped("samples", given.samples, settings.max_samples)),
    )


def _capped(name: str, given: float | None, cap: float) -> float:
    if given is not None and given > cap:
        raise invalid(f"budget.{name}", f"allowed: <= {cap:g}; got {given:g}; the nearest valid value is {cap:g}")
    return cap if given is None else given


# run --------------------------------------------------------------------------------------------------------------
async def respond(request: Request, prepared: Prepared, encoder: Encoder) -> Response:
    """Run a prepared request and answer it, whole or streamed."""
    options = prepared.body.stream_options
    if prepared.body.stream:
        with_events = bool(options and options.include_events)
        feed = Feed(prepared.choices, exclude=prepared.exclude, events=with_events)
        keepalive = prepared.service.settings.keepalive_seconds
        return EventStream(feed, encoder, lambda: run(prepared, feed), keepalive)
    try:
        outcomes = await while_connected(request.receive, run(prepared))
    except ClientGone:
        return Response(status_code=499)  # nobody reads it
    return JSONResponse(encoder.whole(outcomes))


async def run(request: Prepared, feed: Feed | None = None) -> list[Outcome]:
    """Every choice, together, under one budget. Raises the first error, ungrouped."""
    service, guard = request.service, request.service.guard
    used = nullcontext(BASE) if request.adapter is None else service.adapters.use(request.adapter)
    with service.gate.hold(request.width), used as adapter:
        started = time.monotonic()
        try:
            await _check_length(request.prompts(), service.engine)
            rule = await guard.stops(request.caller, request.asked()) if guard else None
            active = ActiveRequest(request, adapter, Budget(request.limits), feed)
            if guard and rule:
                _account_unanswered(request, "filtered")
                return active.refuse(rule, guard.message)
            async with asyncio.TaskGroup() as group:
                over = group.create_task(service.gate.over())
                await asyncio.wait([group.create_task(task) for task in request.tasks(active)])
                over.cancel()
        except asyncio.CancelledError:
            _account_unanswered(request, "cancelled")
            raise
        except Exception as error:  # ungroup: the client gets what failed first
            cause = first_error(error)
            if isinstance(cause, ContextLengthExceeded):
                cause = ContextLengthExceeded(cause.message, param=request.prompt_field)
            _account_unanswered(request, cause)
            raise cause from None
        outcomes = active.outcomes()
        if request.strategy is None:
            service.metrics.drafts(total_usage(outcomes))
        else:
            service.metrics.answered(request.strategy, outcomes, time.monotonic() - started)
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
                raise ContextLengthExceeded(why)
            await asyncio.sleep(0)


class ActiveRequest:
    """A request that was let in: what its work runs with, and where its choices end."""

    def __init__(self, request: Prepared, adapter: AdapterVersion, budget: Budget, feed: Feed | None) -> None:
        self.request, self.adapter, self.budget, self._feed = request, adapter, budget, feed
        self.prompts = PromptCache(request.service.engine)
        """The prompts of all choices, each rendered and tokenised once."""
        self._outcomes: dict[int, Outcome] = {}
        self.filters = tuple(map(self._filter, range(request.choices)))
        """What stands between each choice and the client."""

    def _filter(self, index: int) -> OutputFilter | PassThrough:
        guard, feed = self.request.service.guard, self._feed
        text, events = (feed.text_of(index), feed.events_of(index)) if feed else (None, None)
        filtered = guard and guard.output_filter(self.request.caller, text, events)
        return filtered or PassThrough(text or ignore, events or ignore)

    def seconds_left(self) -> float | None:
        """Until the deadline of its budget."""
        deadline = self.budget.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def outcomes(self) -> list[Outcome]:
        """Those of all choices, once all are closed."""
        return [self._outcomes[index] for index in range(self.request.choices)]

    # close --------------------------------------------------------------------------------------------------------

    async def close(self, index: int, outcome: Outcome) -> None:
        """End a choice with its outcome as the client may have it."""
        self._end(index, await self.filters[index].close(outcome, self.request.service.engine))

    def closed(self, index: int) -> bool:
        """Whether a choice has ended."""
        return index in self._outcomes

    def refuse(self, rule: str, message: str) -> list[Outcome]:
        """End every choice of a request that a rule stopped before anything ran."""
        for index in range(self.request.choices):
            if message and self._feed:
                self._feed.text_of(index)(Piece("content", message))
            nothing = text_outcome(self.request.run_id(index), "", "content_filter")
            self._end(index, replace(withheld(nothing, rule), content=message, stopped="cancelled"))
        return self.outcomes()

    def _end(self, index: int, outcome: Outcome) -> None:
        self._outcomes[index] = outcome
        if self.request.strategy is not None:
            self.request.service.traces.put(outcome.id, outcome.trace)
        if self._feed:
            self._feed.end(index, outcome)


def text_outcome(
    run_id: str, text: str, finish: FinishReason, usage: Usage | None = None, logprobs: Sequence[TokenLogprob] = ()
) -> Outcome:
    """The outcome of a text that no strategy made."""
    return Outcome(
        run_id, text, None, (), finish, Answer(), "done", usage or Usage(), {}, 0, 0, 0, 0.0,
        Trace((), {"id": run_id}), tuple(logprobs),
    )  # fmt: skip


def _account_unanswered(request: Prepared, why: str | BaseException) -> None:
    """A request that was let in and got no answer."""
    if request.strategy is None:
        return
    if isinstance(why, BaseException):
        why = "refused" if failure(why).status < 500 else "error"
    request.service.metrics.unanswered(request.strategy, why)
