"""Which quantised checkpoints the embedded engine reads, told from `config.json` without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from reason_engine.engines._checkpoint import read_json
from reason_engine.errors import ModelLoadError

Scheme = Literal["gptq", "gptq_v2", "awq", "w8a8"]
"""4-bit weights in groups as AutoGPTQ packs them (the second without its offset of one in the zeros), as AutoAWQ packs
them, and compressed-tensors' 8-bit weights with activations quantised token by token."""


def scheme_of(config: Mapping[str, Any], path: Path) -> Scheme | None:
    """None where the weights are not quantised. Raises ModelLoadError for a scheme that this engine does not read."""
    found = config.get("quantization_config")
    if not isinstance(found, dict):
        return None
    said = cast("dict[str, Any]", found)
    method, bits = str(said.get("quant_method", "?")), said.get("bits", said.get("w_bit"))
    if method == "gptq" and bits == 4:
        return "gptq_v2" if said.get("checkpoint_format") == "gptq_v2" else "gptq"
    if (
        method == "awq"
        and bits == 4
        and str(said.get("version", said.get("format", "gemm"))).lower() == "gemm"
    ):
        return "awq"
    if method == "compressed-tensors" and _is_w8a8(said):
        return "w8a8"
    what = f"{method}, {bits} bits" if bits else method
    raise ModelLoadError(
        f"{path}: {what} is not read by this engine, which reads 4-bit gptq, 4-bit awq and W8A8 of compressed-tensors; "
        "use --engine vllm"
    )


def scheme_name(folder: Path) -> str | None:
    """What a checkpoint's configuration calls its quantisation; None where there is none."""
    found = read_json(folder / "config.json").get("quantization_config")
    return str(cast("dict[str, Any]", found).get("quant_method")) if isinstance(found, dict) else None


def _is_w8a8(said: Mapping[str, Any]) -> bool:
    groups = said.get("config_groups")
    if said.get("format") != "int-quantized" or not isinstance(groups, dict) or len(groups) != 1:
        return False
    (group,) = cast("dict[str, Any]", groups).values()
    try:
        weights, inputs = group["weights"], group["input_activations"]
        return (
            (weights["num_bits"], weights["type"], weights["symmetric"], weights["strategy"])
            == (8, "int", True, "channel")
            and (inputs["num_bits"], inputs["type"], inputs["symmetric"]) == (8, "int", True)
            and (inputs["strategy"], inputs["dynamic"]) == ("token", True)
        )
    except (KeyError, TypeError):
        return False
