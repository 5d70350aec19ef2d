"""Our requests as vLLM's SamplingParams, its outputs (`CompletionOutput`) as chunks, its errors as ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from reason_engine.engines.vllm.arguments import vllm_module
from reason_engine.errors import EngineBusy, EngineDead, EngineError, ReasonError, RequestError
from reason_engine.types import Chunk, FinishReason, Sampling, Structured, TokenLogprob

_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "abort": "abort",
    "repetition": "stop",
}


def sampling_params(sampling: Sampling, *, n: int, index: int, room: int, eos_ids: Iterable[int]) -> Any:
    """Samples `index` to `index + n - 1` of a request. `room`: tokens that the context has left.

    vLLM adds a sample's place to the seed by itself. Raises RequestError naming the field that vLLM refuses.
    """
    vllm = vllm_module("sampling_params")
    ends = [] if sampling.ignore_eos else sorted(eos_ids)
    try:
        return vllm.SamplingParams(
            n=n,
            seed=sampling.seed + index,
            max_tokens=min(sampling.max_tokens, room),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            logit_bias=dict(sampling.logit_bias) or None,
            stop=list(sampling.stop) or None,
            include_stop_str_in_output=sampling.include_stop,
            stop_token_ids=[*sampling.stop_token_ids, *ends],
            ignore_eos=sampling.ignore_eos,
            logprobs=sampling.logprobs,
            structured_outputs=_structured(sampling.structured) if sampling.structured else None,
            output_kind=vllm.RequestOutputKind.DELTA,
        )
    except Exception as error:  # the boundary to vLLM's validation
        raise mapped(error) from error


def option_params(token_ids: list[int]) -> Any:
    """One token, with the model's own log-probabilities of these ones."""
    vllm = vllm_module("sampling_params")
    return vllm.SamplingParams(
        max_tokens=1,
        temperature=0.0,
        logprob_token_ids=token_ids,
        detokenize=False,
        output_kind=vllm.RequestOutputKind.FINAL_ONLY,
    )


def chunk(
    sample: Any, *, index: int, sampling: Sampling, eos_ids: Iterable[int], text_of: Callable[[int], str]
) -> Chunk:
    """One delta of one sample. An end-of-sequence token is no stop reason of the caller's."""
    ids = tuple(sample.token_ids)
    reason = sample.finish_reason
    stop = sample.stop_reason
    if isinstance(stop, int) and stop in eos_ids and stop not in sampling.stop_token_ids:
        stop = None
    accepted, rejected = _drafted(sample)
    return Chunk(
        index=index,
        text=sample.text,
        token_ids=ids,
        token_count=len(ids),
        logprobs=_logprobs(ids, sample.logprobs, sampling.logprobs, text_of),
        finish_reason=None if reason is None else _FINISH.get(reason, "error"),
        stop_reason=stop,
        draft_accepted=accepted,
        draft_rejected=rejected,
    )


def mapped(error: Exception) -> Exception:
    """An error of vLLM as the package's own. What it raises for a request is a ValueError or a VLLMClientError."""
    exceptions, dead = vllm_module("exceptions"), vllm_module("v1.engine.exceptions").EngineDeadError
    client = (ValueError, TypeError, exceptions.VLLMValidationError, exceptions.VLLMNotFoundError)
    match error:
        case ReasonError():
            return error
        case _ if isinstance(error, dead):
            return EngineDead("vLLM's engine process has ended")
        case _ if isinstance(error, client):
            return RequestError(_line(error), param=_parameter(error))
        case _ if type(error).__name__ in (
            "QueueOverflowError",
            "MaxQueuedTokensError",
        ):  # not in every release
            return EngineBusy(_line(error))
        case _:
            return EngineError(f"vLLM failed: {_line(error.__cause__ or error)}")


def _structured(wanted: Structured) -> Any:
    constraint = vllm_module("sampling_params").StructuredOutputsParams
    if wanted.json_object:
        return constraint(json_object=True)
    if wanted.choice:
        return constraint(choice=list(wanted.choice))
    return constraint(json=wanted.json_schema, regex=wanted.regex)


def _logprobs(
    ids: tuple[int, ...], places: Any, wanted: int | None, text_of: Callable[[int], str]
) -> tuple[TokenLogprob, ...]:
    """From a mapping {token id: logprob and rank} a place, the sampled token always in it."""
    if wanted is None or not places:
        return ()

    def place(id: int, found: Mapping[int, Any]) -> TokenLogprob:
        ranked = sorted(found.items(), key=lambda item: item[1].rank)[:wanted]
        top = tuple((other, text_of(other), float(entry.logprob)) for other, entry in ranked)
        return TokenLogprob(id, text_of(id), float(found[id].logprob), top)

    return tuple(place(id, found) for id, found in zip(ids, places, strict=True))


def _drafted(sample: Any) -> tuple[int, int]:
    """Accepted and rejected draft tokens, told on the last output by releases that count them (0.30 and later)."""
    found: Any = vars(sample).get("spec_decode_metrics")
    if found is None:
        return 0, 0
    accepted = sum(count * taken for taken, count in enumerate(found.histogram))
    return accepted, found.num_draft_tokens - accepted


def _parameter(error: Exception) -> str | None:
    return vars(error).get("parameter")


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
