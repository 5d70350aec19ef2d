"""What a remote endpoint sends: streamed objects as chunks, and the SDK's errors as ours.

An endpoint counts tokens in one `usage` object at the end. Until then a delta counts by its token ids, else by its
logprobs, else as one token; the finishing chunks are held back until the usage is known and settle the difference, so
that the counts of a request add up to what the endpoint will bill.

Reasoning and tool calls arrive in fields of their own. They are written back into the text, between the marks of a
thought and of a call, so that a path's text is whole and `parse` can split it again.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reason_engine import errors
from reason_engine.contracts import Parsed
from reason_engine.types import Chunk, FinishReason, ModelInfo, TokenLogprob, ToolCall

_SAME: tuple[FinishReason, ...] = ("stop", "length", "tool_calls", "content_filter", "abort")
_FINISH: Mapping[str, FinishReason] = {**{reason: reason for reason in _SAME}, "function_call": "tool_calls"}


@dataclass(slots=True)
class _Sample:
    """The state of one choice while it streams. `held`: its finishing chunk. `calls`: its tool calls by number."""

    tokens: int = 0
    thinking: bool = False
    held: Chunk | None = None
    calls: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])


class ResponseReader:
    """Makes chunks of the objects of one streamed answer. `first` is the index of its first sample, `counted` says that
    the usage inside the stream is that of the choice beside it (vLLM's continuous usage). `info` has the marks."""

    def __init__(self, info: ModelInfo, first: int = 0, *, counted: bool = False) -> None:
        self.info, self.first, self.counted = info, first, counted
        self._samples: dict[int, _Sample] = {}
        self._usage: Mapping[str, Any] = {}
        self._prompt_counted = first != 0

    @property
    def seen(self) -> int:
        """How many of the samples asked for the endpoint has begun."""
        return len(self._samples)

    def read(self, event: Mapping[str, Any]) -> list[Chunk]:
        """The chunks that one streamed object brings; finishing ones are held for `finish`."""
        chunks: list[Chunk] = []
        usage = event.get("usage")
        self._usage = usage or self._usage
        for choice in event.get("choices") or ():
            index = choice.get("index") or 0
            sample = self._samples.setdefault(index, _Sample())
            chunk = self._chunk(choice, index, sample, usage)
            sample.tokens += chunk.token_count
            if chunk.finish_reason:
                sample.held = chunk
            elif chunk.text or chunk.token_count:
                chunks.append(self._with_prompt(chunk) if index == 0 and self._usage else chunk)
        return chunks

    def finish(self) -> list[Chunk]:
        """The held finishing chunks, corrected by the usage. Raises EngineError where a sample never finished."""
        held = {index: sample.held for index, sample in sorted(self._samples.items()) if sample.held}
        if not held or len(held) < len(self._samples):
            raise errors.EngineError("the endpoint ended the stream before the answer was finished")
        total = self._usage.get("completion_tokens") or 0
        missing = max(0, total - sum(sample.tokens for sample in self._samples.values()))
        chunks: list[Chunk] = []
        for index, chunk in held.items():
            share = -(-missing // (len(held) - len(chunks)))  # rounded up: the last one takes what is left
            missing -= share
            chunk = replace(chunk, token_count=chunk.token_count + share)
            chunks.append(self._with_prompt(chunk) if index == 0 else chunk)
        return chunks

    def _chunk(self, choice: Mapping[str, Any], index: int, sample: _Sample, usage: Mapping[str, Any] | None) -> Chunk:
        delta = choice.get("delta")
        text = (choice.get("text") or "") if delta is None else _text(delta, sample, self.info)
        reason = choice.get("finish_reason")
        if reason is not None:
            if sample.thinking:
                text += self.info.think_end
                sample.thinking = False
            text += "".join(_call_text(call, self.info) for _, call in sorted(sample.calls.items()))
        token_ids = tuple(choice.get("token_ids") or ())
        logprobs = _logprobs(choice.get("logprobs"))
        count = len(token_ids) or len(logprobs) or (1 if text and reason is None else 0)
        if self.counted and usage:
            count = max(0, usage["completion_tokens"] - sample.tokens)
        finish = None if reason is None else _FINISH.get(reason, "stop")
        return Chunk(self.first + index, text, token_ids, count, logprobs, finish, choice.get("stop_reason"))

    def _with_prompt(self, chunk: Chunk) -> Chunk:
        """With the prompt's counts, the first time."""
        if self._prompt_counted:
            return chunk
        self._prompt_counted = True
        details = self._usage.get("prompt_tokens_details") or {}
        return replace(
            chunk, prompt_tokens=self._usage.get("prompt_tokens") or 0, cached_tokens=details.get("cached_tokens") or 0
        )


def parse(text: str, *, opened: bool, info: ModelInfo) -> Parsed:
    """The inverse of `ResponseReader`. `opened`: the prompt ends inside the reasoning, so the text begins there.

    A tool call that is not valid JSON stays part of the content.
    """
    reasoning = None
    if opened or text.lstrip().startswith(info.think_start):
        inside = text if opened else text.lstrip()[len(info.think_start) :]
        reasoning, _, text = inside.partition(info.think_end)
    calls: list[ToolCall] = []
    content, *rest = text.split(info.tool_start)
    for part in rest:
        inside, end, after = part.partition(info.tool_end)
        call = _call(inside, len(calls)) if end else None
        if call is None:
            content += info.tool_start + part
        else:
            calls.append(call)
            content += after if after.strip() else ""
    return Parsed(content.strip(), reasoning.strip() if reasoning is not None else None, tuple(calls))


def mapped_error(error: Exception) -> Exception:
    """An error of the SDK as the package's own; anything else unchanged."""
    import openai

    match error:
        case errors.ReasonError():
            return error
        case openai.APITimeoutError():
            return errors.EngineError("the endpoint did not answer in time")
        case openai.APIConnectionError():
            return errors.EngineDead(f"the endpoint cannot be reached: {error.__cause__ or error}")
        case openai.RateLimitError():
            return errors.EngineBusy(f"the endpoint is at its capacity: {error.message}")
        case openai.NotFoundError():
            return errors.UnknownModel(error.message, param="model", code="model_not_found")
        case openai.APIStatusError(status_code=status) if status in (400, 413, 422):
            if _is_context(error):
                return errors.ContextLengthExceeded(error.message, param="messages", code="context_length_exceeded")
            return errors.RequestError(error.message, param=error.param, code=error.code or "invalid_request")
        case openai.APIStatusError(status_code=401 | 403):
            return errors.EngineError(f"the endpoint refused the key: {error.message}")
        case openai.APIStatusError(status_code=503):
            return errors.EngineBusy(f"the endpoint is not ready: {error.message}")
        case openai.APIError():
            return errors.EngineError(f"the endpoint failed: {error.message}")
        case _:
            return error


def _is_context(error: Any) -> bool:
    words = str(error.message).lower()
    return error.code == "context_length_exceeded" or "context length" in words or "context window" in words


def _text(delta: Mapping[str, Any], sample: _Sample, info: ModelInfo) -> str:
    reasoning = delta.get("reasoning") or delta.get("reasoning_content") or ""
    content = delta.get("content") or delta.get("refusal") or ""
    text = ""
    if reasoning:
        text = reasoning if sample.thinking else info.think_start + reasoning
        sample.thinking = True
    for call in delta.get("tool_calls") or ():
        parts = sample.calls.setdefault(call.get("index") or 0, {"name": "", "arguments": ""})
        function = call.get("function") or {}
        for key in parts:
            parts[key] += function.get(key) or ""
    if content and sample.thinking:
        text += info.think_end
        sample.thinking = False
    return text + content


def _call_text(call: Mapping[str, str], info: ModelInfo) -> str:
    try:
        arguments = json.loads(call["arguments"] or "{}")
    except ValueError:
        arguments = call["arguments"]  # kept as the model wrote it; parse gives it back unchanged
    inside = json.dumps({"name": call["name"], "arguments": arguments}, ensure_ascii=False)
    return f"\n{info.tool_start}\n{inside}\n{info.tool_end}"


def _call(text: str, position: int) -> ToolCall | None:
    try:
        found = json.loads(text)
        name, arguments = found["name"], found["arguments"]
    except (ValueError, KeyError, TypeError):
        return None
    arguments = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(f"call_{uuid.uuid5(uuid.NAMESPACE_OID, f'{position}{text}').hex[:24]}", str(name), arguments)


def _logprobs(found: Mapping[str, Any] | None) -> tuple[TokenLogprob, ...]:
    """Both forms: the chat's list of entries, and the parallel lists of plain completions."""
    if not found:
        return ()
    if found.get("content"):
        return tuple(
            TokenLogprob(-1, entry["token"], entry["logprob"], _alternatives(entry.get("top_logprobs") or ()))
            for entry in found["content"]
        )
    tokens: Sequence[str] = found.get("tokens") or ()
    values: Sequence[float | None] = found.get("token_logprobs") or ()
    tops: Sequence[Mapping[str, float] | None] = found.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        TokenLogprob(-1, token, 0.0 if value is None else value, tuple((-1, *pair) for pair in (top or {}).items()))
        for token, value, top in zip(tokens, values, tops, strict=True)
    )


def _alternatives(entries: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, str, float], ...]:
    return tuple((-1, entry["token"], entry["logprob"]) for entry in entries)
