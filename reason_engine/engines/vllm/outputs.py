"""What vLLM generates as our chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from reason_engine.engines.vllm.release import vllm_module
from reason_engine.types import Chunk, FinishReason, Sampling, TokenLogprob

_FINISH: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "abort": "abort", "repetition": "stop"}


def leave_tokens_undecoded() -> None:
    """VLLM decodes the token of each log-probability, one by one and in this process; they are read by their ids here.
    Made again: no effect."""
    processor = vllm_module("v1.engine.logprobs").LogprobsProcessor
    make = processor.from_new_request
    if make.__module__ == __name__:
        return

    def make_undecoded(_: Any, tokenizer: Any, request: Any) -> Any:
        return make(None, request)

    processor.from_new_request = classmethod(make_undecoded)


def chunk_of(
    sample: Any, index: int, sampling: Sampling, eos_ids: Iterable[int], text_of: Callable[[int], str]
) -> Chunk:
    """One delta of one sample. An end-of-sequence token is no stop reason of the caller's."""
    ids = tuple(sample.token_ids)
    reason = sample.finish_reason
    stop = sample.stop_reason
    if isinstance(stop, int) and stop in eos_ids and stop not in sampling.stop_token_ids:
        stop = None
    accepted, rejected = _drafted(sample)
    logprobs = _logprobs(ids, sample.logprobs, sampling.logprobs, text_of)
    made = Chunk(index, sample.text, ids, len(ids), logprobs, reason and _FINISH.get(reason, "error"), stop)
    return replace(made, draft_accepted=accepted, draft_rejected=rejected) if accepted or rejected else made


def _logprobs(
    ids: tuple[int, ...], places: Any, wanted: int | None, text_of: Callable[[int], str]
) -> tuple[TokenLogprob, ...]:
    """Of each place; an abort repeats those of all places without a token."""
    if wanted is None or not places or not ids:
        return ()
    read = _of_mapping if isinstance(places, list) else _of_arrays
    return tuple(read(places, at, id, wanted, text_of) for at, id in enumerate(ids))


def _of_mapping(places: Any, at: int, id: int, wanted: int, text_of: Callable[[int], str]) -> TokenLogprob:
    """From a mapping {token id: logprob and rank}, the sampled token always in it."""
    ranked = sorted(places[at].items(), key=lambda item: item[1].rank)[:wanted]
    top = tuple((other, text_of(other), float(entry.logprob)) for other, entry in ranked)
    return TokenLogprob(id, text_of(id), float(places[at][id].logprob), top)


def _of_arrays(places: Any, at: int, id: int, wanted: int, text_of: Callable[[int], str]) -> TokenLogprob:
    """From a range of flat arrays: the sampled token first, then the likeliest in their order."""
    begin, end = places.start_indices[at], places.end_indices[at]
    values = places.logprobs
    likeliest = range(begin + 1, min(end, begin + 1 + wanted))
    top = tuple((other := places.token_ids[i], text_of(other), values[i]) for i in likeliest)
    return TokenLogprob(id, text_of(id), values[begin], top)


def _drafted(sample: Any) -> tuple[int, int]:
    """Accepted and rejected draft tokens, reported on the last output by releases that count them (0.30 and later)."""
    found: Any = vars(sample).get("spec_decode_metrics")
    if found is None:
        return 0, 0
    accepted = sum(count * taken for taken, count in enumerate(found.histogram))
    return accepted, found.num_draft_tokens - accepted
