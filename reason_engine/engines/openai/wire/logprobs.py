"""Log-probabilities as endpoints report them: the chat's list of entries, and the parallel lists of completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reason_engine.types import TokenLogprob


def logprobs_of(found: Mapping[str, Any] | None, most: int) -> tuple[TokenLogprob, ...]:
    """Every token's, with at most so many alternatives; llama.cpp's server tells the tokens' ids as well."""
    if not found:
        return ()
    if found.get("content"):
        return tuple(
            TokenLogprob(
                entry.get("id", -1), entry["token"], entry["logprob"], _entries(entry.get("top_logprobs") or (), most)
            )
            for entry in found["content"]
        )
    tokens: Sequence[str] = found.get("tokens") or ()
    values: Sequence[float | None] = found.get("token_logprobs") or ()
    tops: Sequence[Mapping[str, float] | None] = found.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        TokenLogprob(-1, token, 0.0 if value is None else value, tuple((-1, *pair) for pair in _first(top, most)))
        for token, value, top in zip(tokens, values, tops, strict=True)
    )


def _first(top: Mapping[str, float] | None, most: int) -> Sequence[tuple[str, float]]:
    """The likeliest; vLLM puts the drawn token in front of them, which may be one more."""
    return sorted((top or {}).items(), key=lambda pair: -pair[1])[:most]


def _entries(entries: Sequence[Mapping[str, Any]], most: int) -> tuple[tuple[int, str, float], ...]:
    return tuple((entry.get("id", -1), entry["token"], entry["logprob"]) for entry in entries[:most])
