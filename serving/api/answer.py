"""Outcomes as the API shows them: choices, usage, and the `reason` object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reason_engine.runtime.outcome import Outcome, cited
from reason_engine.types import TokenLogprob, ToolCall, Usage


def finish_reason(outcome: Outcome) -> str:
    """Clients know stop, length, tool_calls and content_filter; a text cut short for any reason is `length`."""
    return outcome.finish_reason if outcome.finish_reason not in ("abort", "error") else "length"


def reason_of(outcome: Outcome, strategy: str) -> dict[str, Any]:
    """What the strategy did: the `reason` object of a choice."""
    answer = outcome.answer
    return {
        "strategy": strategy,
        "answer": answer.value,
        "confidence": answer.confidence,
        "samples": outcome.samples,
        "votes": [{"answer": vote.answer, "count": vote.count} for vote in answer.votes],
        "stopped": outcome.stopped,
        "seconds": round(outcome.seconds, 4),
        "usage_by_stage": {
            stage: {"prompt": used.prompt, "cached": used.cached, "completion": used.completion}
            for stage, used in outcome.usage_by_stage.items()
        },
        "trace": outcome.id,
        **({"filtered": outcome.filtered} if outcome.filtered else {}),
        **({} if outcome.sources is None else {"sources": cited(outcome.sources)}),
    }


def usage_of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The request's usage: the client's prompt once, and every generated token of every branch of every choice."""
    total = sum((outcome.usage for outcome in outcomes), Usage())
    prompt = max((outcome.prompt_tokens for outcome in outcomes), default=0)
    shown = sum(outcome.content_tokens for outcome in outcomes)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": total.completion,
        "total_tokens": prompt + total.completion,
        # Internal prompts repeat the client's; of the one that is counted here, no more than all can be cached.
        "prompt_tokens_details": {"cached_tokens": min(total.cached, prompt)},
        "completion_tokens_details": {
            "reasoning_tokens": max(0, total.completion - shown),
            "accepted_prediction_tokens": total.draft_accepted,
            "rejected_prediction_tokens": total.draft_rejected,
        },
    }


def message_of(outcome: Outcome, *, exclude: bool) -> dict[str, Any]:
    """The assistant's message; the reasoning under both names that clients read."""
    content = None if outcome.tool_calls and not outcome.content else outcome.content
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if not exclude:
        message["reasoning"] = message["reasoning_content"] = outcome.reasoning
    if outcome.tool_calls:
        message["tool_calls"] = tool_calls_of(outcome.tool_calls)
    return message


def tool_calls_of(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]


def logprobs_of(tokens: Sequence[TokenLogprob], top: int) -> dict[str, Any]:
    """OpenAI's `choice.logprobs` of the content's tokens, with `top` alternatives each."""

    def entry(token: str, value: float) -> dict[str, Any]:
        return {
            "token": token,
            "logprob": max(value, -9999.0),
            "bytes": list(token.encode("utf-8", "replace")),
        }

    content = [
        {
            **entry(token.token, token.logprob),
            "top_logprobs": [entry(text, value) for _, text, value in token.top[:top]],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}
