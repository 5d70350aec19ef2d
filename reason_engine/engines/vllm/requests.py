"""Our requests as vLLM's SamplingParams.

What is 1 for top-p or a temperature, or 0 for top-k, is vLLM's own default, for which it launches nothing. Fields that
not every release has are given to those that know them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reason_engine.engines.vllm.failures import mapped_error
from reason_engine.engines.vllm.release import vllm_module
from reason_engine.types import Sampling, Structured

_SAME = (
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty",
    "ignore_eos", "logprobs",
)  # fmt: skip
"""Fields of a sampling that vLLM calls as we do."""


def sampling_params(
    sampling: Sampling, *, index: int, room: int, eos_ids: Iterable[int], specials: bool = False, interval: int = 1
) -> Any:
    """Sample `index` of a request. `room`: tokens that the context has left. `specials`: control tokens stay in the
    text. `interval`: tokens that may come together. Raises RequestError naming the field that vLLM refuses."""
    vllm = vllm_module("sampling_params")
    newer = {"flat_logprobs": sampling.logprobs is not None, "stream_interval": interval if interval > 1 else None}
    newer = {name: value for name, value in newer.items() if value and name in vllm.SamplingParams.__annotations__}
    ends = [] if sampling.ignore_eos else sorted(eos_ids)
    limit = {} if sampling.thinking is None else {"thinking_token_budget": sampling.thinking}
    try:
        return vllm.SamplingParams(
            **{name: getattr(sampling, name) for name in _SAME},
            **limit,
            **newer,
            skip_special_tokens=not specials,
            n=1,
            seed=sampling.seed + index,
            max_tokens=min(sampling.max_tokens, room),
            logit_bias=dict(sampling.logit_bias) or None,
            stop=list(sampling.stop) or None,
            include_stop_str_in_output=sampling.include_stop,
            stop_token_ids=[*sampling.stop_token_ids, *ends],
            structured_outputs=_structured(sampling.structured) if sampling.structured else None,
            output_kind=vllm.RequestOutputKind.DELTA,
        )
    except Exception as error:  # the boundary to vLLM's validation
        raise mapped_error(error) from error


def option_params(token_ids: list[int]) -> Any:
    """One token, with the model's own log-probabilities of these ones."""
    vllm = vllm_module("sampling_params")
    fields = {"max_tokens": 1, "temperature": 0.0, "logprob_token_ids": token_ids, "detokenize": False}
    return vllm.SamplingParams(**fields, output_kind=vllm.RequestOutputKind.FINAL_ONLY)


def _structured(wanted: Structured) -> Any:
    constraint = vllm_module("sampling_params").StructuredOutputsParams
    if wanted.json_object:
        return constraint(json_object=True)
    if wanted.choice:
        return constraint(choice=list(wanted.choice))
    return constraint(json=wanted.json_schema, regex=wanted.regex)
