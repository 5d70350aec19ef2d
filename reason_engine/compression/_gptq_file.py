"""4-bit codes in AutoGPTQ's layout, which vLLM, transformers and the embedded engine load.

qweight [I / 8, O]  eight codes of one output in an int32, the first in the lowest bits
qzeros  [I / group, O / 8]  the zeros less one, eight outputs in an int32; 8 throughout, since the grid is symmetric
scales  [I / group, O]  fp16          g_idx [I]  the group of each input
"""

from __future__ import annotations

from typing import Any

ZERO = 8


def packed(at: str, code_OI: Any, scale_OG: Any) -> dict[str, Any]:
    """The four tensors of the matrix of that name."""
    import torch

    (outputs, inputs), groups = code_OI.shape, scale_OG.shape[1]
    zeros_GO = torch.full((groups, outputs), ZERO - 1, dtype=torch.uint8)
    return {
        f"{at}.qweight": _eight(code_OI).t().contiguous(),
        f"{at}.qzeros": _eight(zeros_GO),
        f"{at}.scales": scale_OG.t().contiguous().half(),
        f"{at}.g_idx": torch.arange(inputs, dtype=torch.int32) // (inputs // groups),
    }


def quantization_config(group: int) -> dict[str, Any]:
    """What `config.json` says of the weights."""
    return {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": group,
        "sym": True,
        "desc_act": False,
        "lm_head": False,
        "checkpoint_format": "gptq",
        "pack_dtype": "int32",
    }


def _eight(codes: Any) -> Any:
    """Eight codes of the last dimension in an int32."""
    import torch

    shifts = torch.arange(8, dtype=torch.int64) * 4
    words = (codes.reshape(*codes.shape[:-1], -1, 8).to(torch.int64) << shifts).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)
