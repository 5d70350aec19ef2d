"""A fault of vLLM's CPU build (0.32) while it drafts: a step without any draft ends the engine if a row has top-k.

The checker then cuts an empty table to its k largest, and the largest of no numbers is an error. Accelerators take
another path. The shield returns the empty table; it stands wherever the model runs.
"""

from __future__ import annotations

from typing import Any

from reason_engine.engines._vllm_args import vllm_module

_NAME = "apply_top_k_only_if_any"


def shield_empty_steps() -> None:
    """Once a process; again: no effect."""
    module = vllm_module("v1.sample.ops.topk_topp_sampler")
    cut = module.apply_top_k_only
    if cut.__name__ == _NAME:
        return

    def shielded(logits: Any, k: Any) -> Any:
        return cut(logits, k) if logits.shape[0] else logits

    shielded.__name__ = _NAME
    module.apply_top_k_only = shielded
