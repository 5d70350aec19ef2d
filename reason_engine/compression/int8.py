"""W8A8: 8-bit weights with one scale an output channel, 8-bit activations with one scale a token, taken as they come.

    W ≈ s_o · round(W / s_o),  s_o = max_i |W_oi| / 127         round to nearest, symmetric

Written as compressed-tensors `int-quantized`, which vLLM and the embedded engine multiply with as integers. Embedding,
norms and output matrix stay as they are.

`smooth` is SmoothQuant (Xiao et al. 2022, arXiv 2211.10438, equation 4): what the activations' outliers cost moves into
the weights, s_j = max|X_j|^α / max|W_j|^(1-α), X' = X / s, W' = W s. Departure from the paper: 1 / s goes into the rows
of `up_proj` too, for the input of `down_proj`, which is linear in them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from reason_engine.compression import Served, compressors
from reason_engine.compression._linear import check_linears, is_linear
from reason_engine.compression._shards import rewrite
from reason_engine.compression.config import Compression
from reason_engine.compression.material import has_source
from reason_engine.training.callbacks import Tell, silent


class Int8Config(Compression):
    """Without `smooth` nothing is calibrated."""

    smooth: float | None = Field(
        None, gt=0, lt=1, description="α of SmoothQuant; none: round to nearest only. 0.5 is the paper's"
    )

    @model_validator(mode="after")
    def smooth_needs_text(self) -> Int8Config:
        if self.smooth is not None and not has_source(self):
            raise ValueError("smooth looks at activations: name data or a mixture to calibrate on")
        return self


@compressors.register("int8")
class Int8:
    """8-bit weights and activations."""

    config: ClassVar[type[Int8Config]] = Int8Config
    summary: ClassVar[str] = "8-bit weights and activations (W8A8), with SmoothQuant as an option"

    def check(self, config: Int8Config, model: Path) -> list[str]:
        return [check_linears(model)]

    def served(self, config: Int8Config) -> Served:
        return Served("yes, weights stay 8-bit", "yes, W8A8", "yes, W8A8")

    def compress(self, config: Int8Config, model: Path, out: Path, tell: Tell = silent) -> dict[str, Any]:
        """Quantise file by file, so that memory holds one matrix at a time."""
        change = None
        if config.smooth is not None:
            from reason_engine.compression._smooth import folded

            change = folded(config, model, tell)

        def quantised(name: str, tensor: Any) -> dict[str, Any]:
            if change is not None:
                tensor = change(name, tensor)
            return round_to_nearest(name, tensor) if is_linear(name) else {name: tensor}

        count = rewrite(model, out, quantised, tell, "quantise", quantization_config())
        return {"matrices": count, "smooth": config.smooth}


def round_to_nearest(name: str, weight_OI: Any) -> dict[str, Any]:
    """The matrix as int8 with a scale for each output, which stays in fp32."""
    import torch

    weight_OI = weight_OI.float()
    scale_O1 = (weight_OI.abs().amax(1, keepdim=True) / 127).clamp_min(1e-12)
    rounded = torch.round(weight_OI / scale_O1).clamp(-127, 127).to(torch.int8)
    return {name: rounded, f"{name}_scale": scale_O1}


def quantization_config() -> dict[str, Any]:
    """What `config.json` says of the weights."""
    number = {"num_bits": 8, "type": "int", "symmetric": True}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {**number, "strategy": "channel", "dynamic": False},
                "input_activations": {**number, "strategy": "token", "dynamic": True},
                "output_activations": None,
            }
        },
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
    }
