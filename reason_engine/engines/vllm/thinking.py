"""vLLM's limit of a thought: what it is told at start, and whether this release holds it.

A request's `thinking_token_budget` needs a `reasoning_config` with the marks of thoughts; at the limit its end string
is forced, which may hold a sentence before the mark (0.32, `config/reasoning.py`). The sentence is used only where
vLLM also knows the mark by which a thought ends by itself, which it takes from one of its parsers; else the mark alone
is forced. Where a release has no such limit, or none that works, `Sampling.thinking` has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from reason_engine.engines.vllm.release import vllm_module
from reason_engine.types import ModelInfo

PARSERS = {
    ("<think>", "</think>"): "deepseek_r1",
    ("<seed:think>", "</seed:think>"): "seed_oss",
    ("<|START_THINKING|>", "<|END_THINKING|>"): "cohere_command3",
}
"""Parsers of vLLM that know a pair of marks, if both are tokens."""


def reasoning_config(info: ModelInfo, tokens: frozenset[str]) -> dict[str, str] | None:
    """What vLLM is told of this model's thoughts. `tokens`: which of its marks are one token each. None where it has
    no thoughts, or where the end of one could not be told from its tokens."""
    if not (info.thinks or info.think_on_request) or info.think_end not in tokens:
        return None
    parser = PARSERS.get((info.think_start, info.think_end)) if info.think_start in tokens else None
    if parser is None:
        return {"reasoning_start_str": info.think_start, "reasoning_end_str": info.think_end}
    return {
        "reasoning_parser": parser,
        "reasoning_start_str": info.think_start,
        "reasoning_end_str": info.think_close.rstrip("\n"),
    }


def offers_budget() -> bool:
    """Whether this release limits thoughts."""
    arguments, sampling = vllm_module("engine.arg_utils").EngineArgs, vllm_module("sampling_params").SamplingParams
    known = {field.name for field in fields(arguments)} if is_dataclass(arguments) else set[str]()
    return "reasoning_config" in known and "thinking_token_budget" in sampling.__annotations__


def arguments_for(info: ModelInfo, tokens: frozenset[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """What EngineArgs get besides those `given`: nothing where the operator set it himself or there is none to set."""
    own = None if {"reasoning_config", "reasoning_parser"} & set(given) else reasoning_config(info, tokens)
    if own is None or not offers_budget():
        return {}
    try:
        return {"reasoning_config": vllm_module("config").ReasoningConfig(**own)}
    except (TypeError, ValueError):  # a release that calls its fields otherwise
        return {}


def holds_budget(config: Any, *, repaired: bool) -> bool:
    """Whether the runner that was chosen ends a thought at its limit without harm: without Triton, it looks for the
    whole forced text to see that a thought has ended, unless `repaired`."""
    if not offers_budget() or config.reasoning_config is None or not config.reasoning_config.enabled:
        return False
    forced = config.reasoning_config
    try:
        alone = forced.reasoning_end_token_ids == forced.natural_reasoning_end_token_ids
        return alone or repaired or bool(config.use_v2_model_runner)
    except AttributeError:  # a release that does not tell the two ends apart
        return False
