"""Two faults of vLLM's CPU build (0.32) while it drafts, each the end of the engine where a row has top-k.

Each row's top-k is repeated for its drafted tokens by a kernel that fills integers of 32 bits wrongly; and in a step
without any draft the checker cuts an empty table to its k largest, which is an error. Accelerators take other paths.
The shield repeats in torch, and leaves an empty table alone; it must stand where the model runs.
"""

from __future__ import annotations

from typing import Any

from reason_engine.engines._vllm_args import vllm_module

_NAME = "apply_top_k_only_if_any"


def shield_drafting() -> None:
    """Once a process; again: no effect."""
    import torch

    cutting, checking = (
        vllm_module("v1.sample.ops.topk_topp_sampler"),
        vllm_module("v1.sample.rejection_sampler"),
    )
    cut = cutting.apply_top_k_only
    if cut.__name__ == _NAME:
        return

    def cut_if_any(logits: Any, k: Any) -> Any:
        return cut(logits, k) if logits.shape[0] else logits

    def repeated(x_B: Any, ends_B: Any, tokens: int, replace_from: int = 0, replace_to: int = 0) -> Any:
        counts = torch.diff(ends_B, prepend=ends_B.new_zeros(1))
        return torch.where(x_B == replace_from, replace_to, x_B).to(x_B.dtype).repeat_interleave(counts)

    cut_if_any.__name__ = _NAME
    cutting.apply_top_k_only, checking.expand_batch_to_tokens = cut_if_any, repeated
