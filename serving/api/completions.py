"""`POST /v1/completions`: plain text continued, without template or strategy, for tools that measure models.

Prompts given as token ids are turned into text first, since ids that the model has not must never reach it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, cast

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from reason_engine.contracts import Engine
from reason_engine.errors import CapabilityMissing, RequestError
from reason_engine.runtime.drawn import PartialPath
from reason_engine.runtime.solve import Outcome
from reason_engine.runtime.stream_text import Piece
from reason_engine.runtime.trace import Event
from reason_engine.serving.api.errors import as_list, invalid, read_object
from reason_engine.serving.api.messages import total_usage, usage_object
from reason_engine.serving.api.pipeline import ActiveRequest, Prepared, respond, sampling_of, text_outcome
from reason_engine.serving.api.schema import CompletionRequest, completion_request, generation_of, split_model
from reason_engine.serving.api.stream import Encoder
from reason_engine.serving.service import Service
from reason_engine.types import GenerateRequest, Limits, TokenLogprob

DEFAULT_TOKENS = 16


def completion_routes(router: APIRouter, service: Service) -> None:
    """The route of one server."""

    @router.post("/v1/completions", summary="Continue a text", **generation_of(CompletionRequest))
    async def completions(request: Request) -> Response:
        """OpenAI's plain completions; no strategy runs here."""
        service.gate.check()
        body = completion_request(await read_object(request))
        prepared = _prepare(service, request, body)
        return await respond(request, prepared, TextEncoder(prepared))


def _prepare(service: Service, request: Request, body: CompletionRequest) -> PreparedCompletion:
    """Everything that is known before the engine is asked. Raises RequestError."""
    engine, settings = service.engine, service.settings
    adapter, _ = split_model(body.model, service.name, service.adapters.loaded)
    prompts, n = _read_prompts(body.prompt, engine), body.n or 1
    choices = n * len(prompts)
    if choices > settings.max_width:
        why = f"{len(prompts)} prompts x {n} are more than the {settings.max_width} sequences that this server allows"
        raise RequestError(f"n: {why}", param="n" if n > 1 else "prompt", code="invalid_value")
    most = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
    if choices * most > settings.max_tokens:
        why = f"{choices} sequences of {most} tokens are over this server's {settings.max_tokens} for one request"
        raise invalid("max_tokens", f"{why}; the nearest valid value is {settings.max_tokens // choices}")
    if body.logprobs is not None and engine.caps.logprobs < body.logprobs:
        why = f"logprobs: this engine reports at most {max(0, engine.caps.logprobs)}"
        raise CapabilityMissing(why, param="logprobs")
    return PreparedCompletion(
        service=service, body=body, caller=service.guard and service.guard.caller(request.scope["headers"]),
        adapter=adapter, sampling=sampling_of(body, "max_tokens", most, engine.info.context, body.logprobs),
        limits=Limits(seconds=settings.max_seconds), choices=choices, width=choices, texts=prompts, n=n,
    )  # fmt: skip


def _read_prompts(value: object, engine: Engine) -> tuple[str, ...]:
    """The prompts as texts. Raises RequestError for anything else."""
    items = [value] if isinstance(value, str) else as_list(value)
    if items and all(map(_is_id, items)):
        items = [items]
    prompts: list[str] = []
    for item in items or ():
        ids = as_list(item)
        if isinstance(item, str) and item:
            prompts.append(item)
        elif ids and all(_is_id(token) and token >= 0 for token in ids):
            try:
                prompts.append(engine.detokenize(cast("list[int]", ids)))
            except (IndexError, KeyError, OverflowError, TypeError, ValueError):
                raise invalid("prompt", "holds a token id that this model has not") from None
        else:
            raise invalid("prompt", "must be a text, a list of texts, or lists of token ids, none of them empty")
    if not prompts:
        raise invalid("prompt", "is empty")
    return tuple(prompts)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCompletion(Prepared):
    """Texts that are continued n times each."""

    prefix = "cmpl"
    prompt_field = "prompt"

    body: CompletionRequest
    texts: tuple[str, ...]
    n: int

    def prompts(self) -> tuple[str, ...]:
        return self.texts

    def asked(self) -> list[str]:
        return [*self.texts, *self.sampling.stop]

    def tasks(self, active: ActiveRequest) -> Iterator[Coroutine[Any, Any, None]]:
        # A sample that a rule stops is aborted alone, so each is then a request of its own.
        together = 1 if active.filters[0].active else self.n
        for first in range(0, self.choices, together):
            yield self._continue(active, range(first, first + together))

    async def _continue(self, active: ActiveRequest, indices: range) -> None:
        """Samples one text for these choices, until the operator's time limit at most."""
        engine, prompt = self.service.engine, self.texts[indices[0] // self.n]
        paths = {index: PartialPath(index) for index in indices}
        # Each choice has the seed of its place; those of one request follow one another.
        sampling = replace(self.sampling, seed=(self.sampling.seed + indices[0]) % 2**31)
        name = f"{self.id}-{indices[0]}"
        request = GenerateRequest(name, prompt, len(indices), sampling, active.adapter.name)
        if self.body.echo:
            for index in indices:
                active.filters[index].add_text(Piece("content", prompt))
        chunks = engine.generate(request)
        try:
            async with asyncio.timeout(active.seconds_left()), aclosing(chunks):  # pyright: ignore[reportArgumentType]
                async for chunk in chunks:
                    index = indices[chunk.index]
                    path, output = paths[index], active.filters[index]
                    path.add(chunk)
                    if chunk.text:
                        output.add_text(Piece("content", chunk.text))
                    if chunk.finish_reason or output.halted():
                        await self._close(active, path, prompt)
                        if output.halted():
                            return
        except TimeoutError:
            pass
        for index, path in paths.items():
            if not active.closed(index):
                await self._close(active, path, prompt)

    async def _close(self, active: ActiveRequest, path: PartialPath, prompt: str) -> None:
        usage = path.usage
        if active.filters[path.index].active and path.index % self.n:
            usage = replace(usage, prompt=0, cached=0)  # its prompt counts once, with the first choice
        text = prompt + path.text if self.body.echo else path.text
        finish = "stop" if path.finish == "stop" else "length"
        run_id = self.run_id(path.index)
        await active.close(path.index, text_outcome(run_id, text, finish, usage, path.logprobs))


class TextEncoder(Encoder):
    """Writes plain completions, which have neither roles nor reasoning."""

    def __init__(self, request: PreparedCompletion) -> None:
        super().__init__(request.head("text_completion"), request.body.stream_options)
        self._body = request.body

    def whole(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        choices = [self._choice(index, one, one.content) for index, one in enumerate(outcomes)]
        return {**self.head, "choices": choices, "usage": self.usage(outcomes)}

    def delta(self, index: int, pieces: Sequence[Piece], events: Sequence[Event]) -> bytes:
        text = "".join(piece.text for piece in pieces)
        return self.chunk([{"index": index, "text": text, "logprobs": None, "finish_reason": None}])

    def last(self, index: int, outcome: Outcome) -> bytes:
        return self.chunk([self._choice(index, outcome, "")])

    def usage(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Every prompt once, and every token; there is no reasoning."""
        total = total_usage(outcomes)
        return usage_object(total, total.prompt, total.completion)

    def _choice(self, index: int, outcome: Outcome, text: str) -> dict[str, Any]:
        logprobs = _logprobs(outcome.logprobs) if self._body.logprobs is not None else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": outcome.finish_reason}


def _logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{text: value for _, text, value in token.top} for token in tokens],
        "text_offset": list(accumulate((len(token.token) for token in tokens[:-1]), initial=0)) if tokens else [],
    }
