"""Quantised checkpoints for tests: round to nearest, packed by hand as AutoGPTQ and AutoAWQ do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def quantise(weight_OI: Any, group: int, symmetric: bool = False) -> tuple[Any, Any, Any]:
    """Codes 0..15, scales and zeros, (O, I) and (O, G); a symmetric grid has its zero at 8."""
    import torch

    grouped = weight_OI.float().unflatten(1, (-1, group))
    if symmetric:
        scale = (grouped.abs().amax(-1) / 7).half().float().clamp(min=1e-4)
        codes = (grouped / scale[..., None] + 8).round().clamp(0, 15)
        return codes.flatten(1).int(), scale, torch.full_like(scale, 8).int()
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    scale = ((high - low) / 15).half().float().clamp(min=1e-4)
    zero = (-low / scale).round().clamp(1, 15)
    codes = (grouped / scale[..., None] + zero[..., None]).round().clamp(0, 15)
    return codes.flatten(1).int(), scale, zero.int()


def numbers(codes_OI: Any, scale_OG: Any, zero_OG: Any) -> Any:
    """The matrix that the codes stand for."""
    grouped = codes_OI.unflatten(1, (scale_OG.shape[1], -1)).float()
    return ((grouped - zero_OG[..., None]) * scale_OG[..., None]).flatten(1)


def packed(codes: Any, order: tuple[int, ...] = tuple(range(8))) -> Any:
    """Eight 4-bit codes of the last dimension an int32; code `order[i]` at place i."""
    import torch

    eights = codes.to(torch.int64).unflatten(-1, (-1, 8))
    whole = sum(eights[..., code] << (4 * place) for place, code in enumerate(order))
    return torch.where(whole >= 2**31, whole - 2**32, whole).to(torch.int32)


def tensors(
    name: str, weight_OI: Any, scheme: str, group: int, order_I: Any = None, symmetric: bool = False
) -> dict[str, Any]:
    """What stands in a file for the matrix. `order_I`: inputs as act-order sorts them before they are grouped."""
    import torch

    sorted_OI = weight_OI if order_I is None else weight_OI[:, order_I]
    codes, scale, zero = quantise(sorted_OI, group, symmetric)
    inputs = weight_OI.shape[1]
    group_I = torch.arange(inputs) // group
    if order_I is not None:
        back = torch.argsort(order_I)
        codes, group_I = codes[:, back], group_I[back]
    if scheme == "awq":
        files = {"qweight": packed(codes.t(), AWQ_ORDER), "qzeros": packed(zero.t(), AWQ_ORDER)}
    else:
        files = {
            "qweight": packed(codes).t(),
            "qzeros": packed(zero.t() - int(scheme == "gptq")),
            "g_idx": group_I.int(),
        }
    return {f"{name}.{k}": v.contiguous() for k, v in {**files, "scales": scale.t().half()}.items()}


def write_int4(model: Path, out: Path, scheme: str = "gptq", group: int = 32, *, symmetric: bool = False) -> Path:
    """A 4-bit copy of a checkpoint."""
    from safetensors.torch import load_file, save_file

    from reason_engine.compression.matrices import is_layer_matrix

    shutil.copytree(model, out)
    made: dict[str, Any] = {}
    for name, tensor in load_file(model / "model.safetensors").items():
        if is_layer_matrix(name):
            made |= tensors(name.removesuffix(".weight"), tensor, scheme, group, None, symmetric)
        else:
            made[name] = tensor
    save_file(made, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    said = {
        "quant_method": scheme.partition("_")[0],
        "bits": 4,
        "group_size": group,
        "sym": symmetric,
        "desc_act": False,
    }
    said |= {"version": "gemm"} if scheme == "awq" else {"checkpoint_format": scheme}
    (out / "config.json").write_text(json.dumps({**config, "quantization_config": said}))
    return out
