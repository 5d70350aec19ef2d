"""Rows without an adapter in vLLM's CPU kernels.

A batch that mixes adapters marks a row of the base model with slot -1. The torch kernels of the CPU build index the
adapter weights with it, so such a row silently gets the last adapter. The cure: rows below zero get a zero activation
in the first of the two products (shrink), so that the second (expand) adds nothing.
"""

from __future__ import annotations

from typing import Any

from reason_engine.engines._vllm_args import vllm_module


def shield_base_rows() -> None:
    """Replace both shrink kernels in this process. Must run before the engine is built; again: no effect.

    Raises ImportError or AttributeError where this vLLM has other kernels: then it has to be checked whether they need
    the cure.
    """
    import torch

    bgmv_shrink = vllm_module("lora.ops.torch_ops.lora_ops").bgmv_shrink
    punica_cpu = vllm_module("lora.punica_wrapper.punica_cpu")
    if punica_cpu.bgmv_shrink is not bgmv_shrink:
        return

    def shrink_rows(x_BI: Any, weights: Any, out_BR: Any, slots_B: Any, scale: float = 1.0) -> None:
        bgmv_shrink(x_BI, weights, out_BR, slots_B.clamp(min=0), scale)
        rows = slots_B.shape[0]
        out_BR[:rows].masked_fill_((slots_B < 0).unsqueeze(1), 0)

    def shrink_runs(
        x_BI: Any,
        weights: Any,
        out_BR: Any,
        starts_S: Any,
        lengths_S: Any,
        slots_S: Any,
        batches: int,
        longest: int,
        tokens: int,
        scale: float,
    ) -> None:
        shrink_rows(x_BI, weights, out_BR, torch.repeat_interleave(slots_S, lengths_S), scale)

    punica_cpu.bgmv_shrink = shrink_rows
    punica_cpu.sgmv_shrink = shrink_runs
