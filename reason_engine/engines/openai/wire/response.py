"""What a remote endpoint sends: streamed objects as chunks.

An endpoint counts tokens in `usage` objects, most often in one at the end. Until then a delta counts by its token ids,
else by its logprobs, else as one token; the finishing chunks are held back until the usage is known and settle the
difference, so that the counts of a request add up to what the endpoint will bill.

Reasoning and tool calls arrive in fields of their own. They are written back into the text, between the marks of a
thought and of a call (`marks.py`), so that a path's text is whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reason_engine import errors
from reason_engine.engines.openai.wire.dialects import Usage
from reason_engine.engines.openai.wire.logprobs import logprobs_of
from reason_engine.engines.openai.wire.marks import call_text
from reason_engine.types import Chunk, FinishReason, ModelInfo

_SAME: tuple[FinishReason, ...] = ("stop", "length", "tool_calls", "content_filter", "abort")
_FINISH: Mapping[str, FinishReason] = {**{reason: reason for reason in _SAME}, "function_call": "tool_calls"}
_ALL = 1 << 30


@dataclass(slots=True)
class _Sample:
    """The state of one choice while it streams. `held`: its finishing chunk. `calls`: its tool calls by number.
    `told`: its tokens as a `usage` of its own says."""

    tokens: int = 0
    thinking: bool = False
    carried: bool = False
    held: Chunk | None = None
    told: int | None = None
    calls: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])


class ResponseReader:
    """Makes chunks of the objects of one streamed answer. `first` is the index of its first sample, `usage` says whose
    tokens a usage counts (`Dialect`), `alternatives` how many are to be kept at each token. `carried`: the text goes on
    with a thought that was begun elsewhere. `info` has the marks."""

    def __init__(
        self,
        info: ModelInfo,
        first: int = 0,
        *,
        usage: Usage = "request",
        alternatives: int = _ALL,
        carried: bool = False,
    ) -> None:
        self.info, self.first, self.counts, self.alternatives = info, first, usage, alternatives
        self._carried = carried
        self._samples: dict[int, _Sample] = {}
        self._last: _Sample | None = None
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
            sample = self._samples.setdefault(index, _Sample(carried=self._carried))
            chunk = self._chunk(choice, index, sample, usage, event.get("__verbose"))
            sample.tokens += chunk.token_count
            if chunk.finish_reason:
                sample.held, self._last = chunk, sample
            elif chunk.text or chunk.token_count:
                chunks.append(self._with_prompt(chunk) if index == 0 and self._usage else chunk)
        if usage and self._last and self.counts == "sample":
            self._last.told = usage.get("completion_tokens")
        return chunks

    def finish(self) -> list[Chunk]:
        """The held finishing chunks, corrected by the usage. Raises EngineError where a sample never finished."""
        held = self._held()
        if not held or len(held) < len(self._samples):
            raise errors.EngineError("the endpoint ended the stream before the answer was finished")
        total = self._usage.get("completion_tokens") or 0
        missing = max(0, total - sum(sample.tokens for sample in self._samples.values()))
        if self.counts == "sample":
            missing = 0
        chunks: list[Chunk] = []
        for index, chunk in held.items():
            share = -(-missing // (len(held) - len(chunks)))  # rounded up: the last one takes what is left
            missing -= share
            chunks.append(self._settled(index, replace(chunk, token_count=chunk.token_count + share)))
        return chunks

    def rescued(self) -> list[Chunk]:
        """The finishing chunks of a stream that broke: those samples are whole, whatever became of the others."""
        return [self._settled(index, chunk) for index, chunk in self._held().items()]

    def _held(self) -> dict[int, Chunk]:
        return {index: sample.held for index, sample in sorted(self._samples.items()) if sample.held}

    def _settled(self, index: int, chunk: Chunk) -> Chunk:
        sample = self._samples[index]
        if sample.told is not None:
            chunk = replace(chunk, token_count=chunk.token_count + max(0, sample.told - sample.tokens))
        return self._with_prompt(chunk) if index == 0 else chunk

    def _chunk(
        self, choice: Mapping[str, Any], index: int, sample: _Sample, usage: Mapping[str, Any] | None, more: Any
    ) -> Chunk:
        delta = choice.get("delta")
        text = (choice.get("text") or "") if delta is None else _text(delta, sample, self.info)
        reason = choice.get("finish_reason")
        if reason is not None:
            if sample.thinking:
                text += self.info.think_end
                sample.thinking = False
            text += "".join(call_text(call, self.info) for _, call in sorted(sample.calls.items()))
        drawn = (more or {}).get("tokens") if reason is None else ()
        token_ids = tuple(choice.get("token_ids") or drawn or ())
        logprobs = logprobs_of(choice.get("logprobs"), self.alternatives)
        count = len(token_ids) or len(logprobs) or (1 if text and reason is None else 0)
        if self.counts == "choice" and usage:
            count = max(0, usage["completion_tokens"] - sample.tokens)
        finish = None if reason is None else _FINISH.get(reason, "stop")
        met = choice.get("matched_stop")  # SGLang's word, which names the end of the text as well
        stop = choice.get("stop_reason", met if isinstance(met, str) else None)
        return Chunk(self.first + index, text, token_ids, count, logprobs, finish, stop)

    def _with_prompt(self, chunk: Chunk) -> Chunk:
        """With the prompt's counts, the first time."""
        if self._prompt_counted:
            return chunk
        self._prompt_counted = True
        details = self._usage.get("prompt_tokens_details") or {}
        return replace(
            chunk, prompt_tokens=self._usage.get("prompt_tokens") or 0, cached_tokens=details.get("cached_tokens") or 0
        )


def _text(delta: Mapping[str, Any], sample: _Sample, info: ModelInfo) -> str:
    reasoning = delta.get("reasoning") or delta.get("reasoning_content") or ""
    content = delta.get("content") or delta.get("refusal") or ""
    text = ""
    if reasoning:
        text = reasoning if sample.thinking or sample.carried else info.think_start + reasoning
        sample.thinking, sample.carried = True, False
    for call in delta.get("tool_calls") or ():
        parts = sample.calls.setdefault(call.get("index") or 0, {"name": "", "arguments": ""})
        function = call.get("function") or {}
        for key in parts:
            parts[key] += function.get(key) or ""
    if content and sample.thinking:
        text += info.think_end
        sample.thinking = False
    sample.carried = sample.carried and not content
    return text + content
