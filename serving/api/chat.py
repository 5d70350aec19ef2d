"""`POST /v1/chat/completions`: the last user turn answered by the strategy that the request chose."""

from __future__ import annotations

import json
import secrets
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from reason_engine.contracts import Capabilities
from reason_engine.errors import CapabilityMissing
from reason_engine.runtime.solve import Outcome, solve
from reason_engine.runtime.stream_text import Piece
from reason_engine.runtime.trace import Event, to_json
from reason_engine.serving.api import messages, schema
from reason_engine.serving.api.errors import read_object
from reason_engine.serving.api.pipeline import ActiveRequest, Prepared, check_width, limits_of, respond, sampling_of
from reason_engine.serving.api.stream import Encoder
from reason_engine.serving.guard.content_guard import asked_texts
from reason_engine.serving.service import Service
from reason_engine.types import Problem, Structured


def chat_routes(router: APIRouter, service: Service) -> None:
    """The chat route of one server."""

    @router.post("/v1/chat/completions", summary="Answer a conversation", **schema.generation_of(schema.ChatRequest))
    async def chat(request: Request) -> Response:
        """OpenAI's chat completions, with `reasoning` and `budget`; see /v1/strategies for the strategies."""
        service.gate.check()
        body = schema.chat_request(await read_object(request))
        prepared = _prepare(service, request, body)
        return await respond(request, prepared, ChatEncoder(prepared))


def _prepare(service: Service, request: Request, body: schema.ChatRequest) -> PreparedChat:
    """Everything that is known before the engine is asked. Raises RequestError."""
    engine, settings = service.engine, service.settings
    adapter, suffix = schema.split_model(body.model, service.name, service.adapters.loaded)
    choice = schema.choose_strategy(body.reasoning, suffix, body.reasoning_effort, settings.strategy)
    history, question, tail = messages.read_messages(body.messages)
    structured = _structured(body, engine.caps)
    top = (body.top_logprobs or 0) if body.logprobs else None
    if top is not None and (reported := engine.caps.logprobs) < top:
        param = "logprobs" if reported < 0 else "top_logprobs"
        why = "reports none" if reported < 0 else f"reports at most {reported}"
        raise CapabilityMissing(f"{param}: this engine {why}", param=param)
    tools = tuple(tool.model_dump(exclude_none=True) for tool in body.tools or ())
    offered = tools if body.tool_choice != "none" else ()
    switch = (body.chat_template_kwargs or {}).get("enable_thinking")
    param = "max_completion_tokens" if body.max_completion_tokens is not None else "max_tokens"
    longest = body.max_completion_tokens or body.max_tokens or 0
    return PreparedChat(
        service=service, body=body, caller=service.guard and service.guard.caller(request.scope["headers"]),
        adapter=adapter, sampling=sampling_of(body, param, longest, engine.info.context, top),
        limits=limits_of(body.budget, settings), choices=body.n or 1,
        width=check_width(body.n or 1, choice.strategy, settings),
        exclude=choice.exclude or body.include_reasoning is False, choice=choice,
        problem=Problem(question, history, offered, body.tool_choice, structured, tail=tail),
        seed=secrets.randbits(31) if body.seed is None else body.seed,
        think=choice.think if choice.think is not None else switch,
    )  # fmt: skip


def _structured(body: schema.ChatRequest, caps: Capabilities) -> Structured | None:
    """What `response_format` asks of the text. Raises CapabilityMissing where the engine cannot hold it."""
    wanted = body.response_format
    if body.tools and body.tool_choice not in (None, "auto", "none") and not caps.structured:
        why = "tool_choice: this engine cannot be held to a call; only auto and none"
        raise CapabilityMissing(why, param="tool_choice")
    if wanted is None or wanted.type == "text":
        return None
    if not caps.structured:
        param = "response_format.type"
        raise CapabilityMissing(f"{param}: this engine cannot hold {wanted.type}; only text", param=param)
    if wanted.json_schema is None:
        return Structured(json_object=True)
    return Structured(json_schema=json.dumps(wanted.json_schema.schema_))


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedChat(Prepared):
    """A conversation whose last turn is answered by a strategy, once a choice."""

    prefix = "chatcmpl"
    prompt_field = "messages"

    body: schema.ChatRequest
    choice: schema.StrategyChoice
    problem: Problem
    seed: int
    think: bool | None

    @property
    def strategy(self) -> str:
        return self.choice.name

    def prompts(self) -> list[str]:
        return [turn.content for turn in self.problem.turns()]

    def asked(self) -> list[str]:
        return asked_texts(self.problem, self.body.model_dump(exclude_none=True))

    def tasks(self, active: ActiveRequest) -> Iterable[Coroutine[Any, Any, None]]:
        return [self._solve(active, index) for index in range(self.choices)]

    async def _solve(self, active: ActiveRequest, index: int) -> None:
        service, guard, output = self.service, self.service.guard, active.filters[index]
        outcome = await solve(
            self.choice.strategy, self.problem, service.engine, profile=active.adapter.profile or service.profile,
            limits=active.budget, sampling=self.sampling, temperature=self.body.temperature, seed=self.seed + index,
            adapter=active.adapter.name, think=self.think, thought=self.choice.thought, equality=service.equality,
            knowledge=guard.answerable(self.caller, service.knowledge) if guard else service.knowledge,
            powers=service.powers, prompts=active.prompts, run_id=self.run_id(index), publish=output.add_event,
            say=output.add_text, halted=output.halted,
        )  # fmt: skip
        await active.close(index, outcome)


class ChatEncoder(Encoder):
    """Writes chat completions; of a stream, what does not change is encoded once."""

    def __init__(self, request: PreparedChat) -> None:
        super().__init__(request.head("chat.completion.chunk"), request.body.stream_options)
        self._request, self._body, each = request, request.body, range(request.choices)
        plain, role = json.dumps(self.head)[:-1], {"role": "assistant", "content": ""}
        self._starts = [f'data: {plain}, "choices": [{{"index": {i}, "delta": {{' for i in each]
        self.first = self.chunk([{"index": i, "delta": role, "finish_reason": None} for i in each])

    def whole(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        written = [messages.message_of(outcome, exclude=self._request.exclude) for outcome in outcomes]
        choices = [{"index": i, "message": written[i], **self._end(one)} for i, one in enumerate(outcomes)]
        head, usage = self._request.head("chat.completion"), messages.usage_of(outcomes)
        return {**head, "choices": choices, "usage": usage, "reason": choices[0]["reason"]}

    def delta(self, index: int, pieces: Sequence[Piece], events: Sequence[Event]) -> bytes:
        """What one choice gained: neighbouring pieces of a field joined, one chunk a field."""
        start, out = self._starts[index], list[str]()
        if events:
            happened = json.dumps({"index": index, "events": [to_json(event) for event in events]})
            out.append(f'{start}}}, "finish_reason": null}}], "reason": {happened}}}\n\n')
        for field, run in groupby(pieces, attrgetter("field")):
            text = json.encoder.encode_basestring("".join([piece.text for piece in run]))
            body = f'"content": {text}' if field == "content" else f'"reasoning": {text}, "reasoning_content": {text}'
            out.append(f'{start}{body}}}, "finish_reason": null}}]}}\n\n')
        return "".join(out).encode("utf-8", "replace")

    def last(self, index: int, outcome: Outcome) -> bytes:
        tools = [{"index": i, **call} for i, call in enumerate(messages.tool_calls_of(outcome.tool_calls))]
        choice = {"index": index, "delta": {"tool_calls": tools} if tools else {}, **self._end(outcome)}
        return self.chunk([choice], reason=choice["reason"]) if index == 0 else self.chunk([choice])

    def _end(self, outcome: Outcome) -> dict[str, Any]:
        body, reason = self._body, messages.reason_of(outcome, self._request.strategy)
        logprobs = messages.logprobs_of(outcome.logprobs, body.top_logprobs or 0) if body.logprobs else None
        return {"logprobs": logprobs, "finish_reason": messages.finish_reason(outcome), "reason": reason}
