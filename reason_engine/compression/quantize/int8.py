"""W8A8: 8-bit weights with one scale an output channel, 8-bit activations with one scale a token, taken as they come.

    W ≈ s_o · round(W / s_o),  s_o = max_i |W_oi| / 127         round to nearest, symmetric

Written as compressed-tensors `int-quantized`, which vLLM and the embedded engine multiply with as integers. Embedding,
norms and output matrix stay as they are.

`smooth` is SmoothQuant (Xiao et al. 2022, arXiv 2211.10438, equation 4): what the activations' outliers cost moves into
the weights, s_j = max|X_j|^α / max|W_j|^(1-α), X' = X / s, W' = W s. Departure from the paper: 1 / s goes into the rows
of `up_proj` too, for the input of `down_proj`, which is linear in them.

SmoothQuant's scales from activations, folded into norms and matrices; see `int8` for the formula.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from reason_engine.compression import Served, compressors
from reason_engine.compression.calibration_rows import has_source, read
from reason_engine.compression.config import Compression
from reason_engine.compression.shards import check_linears, is_linear, rewrite
from reason_engine.progress import OnProgress, silent


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

    def compress(
        self, config: Int8Config, model: Path, out: Path, tell: OnProgress = silent
    ) -> dict[str, Any]:
        """Quantise file by file, so that memory holds one matrix at a time."""
        change = None
        if config.smooth is not None:
            from reason_engine.compression.quantize.int8 import folded

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


LEAST = 1e-5
FOLLOWERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.up_proj": ("mlp.down_proj",),
}
"""What the inverse of a scale goes into, and the matrices whose input it is."""


def folded(config: Any, model: Path, tell: OnProgress) -> Callable[[str, Any], Any]:
    """What makes of each tensor of the checkpoint the one that quantises well; the model computes the same.

    Raises SetupError where the text is too short.
    """
    import torch

    from reason_engine.training.common.models import load_model

    material = read(config, model)
    tell({"note": f"calibrated on {material.source}"})
    loaded, _ = load_model(model)
    largest = _activations(loaded.eval(), material.calibration, tell)
    weights = loaded.state_dict()
    scales: dict[str, Any] = {}
    for at in sorted({name.rpartition("|")[0] for name in largest}):
        for source, followers in FOLLOWERS.items():
            columns = torch.stack([weights[f"{at}.{name}.weight"].abs().amax(0) for name in followers]).amax(
                0
            )
            seen = largest[f"{at}|{followers[0]}"].clamp_min(LEAST)
            scale_I = (seen**config.smooth / columns.clamp_min(LEAST) ** (1 - config.smooth)).cpu()
            scales |= {f"{at}.{name}.weight": (scale_I, "times") for name in followers}
            scales[f"{at}.{source}|"] = (scale_I, "over")

    def change(name: str, tensor: Any) -> Any:
        out = tensor.float()
        if name in scales:
            out = out * scales[name][0]
        over = re.sub(r"\.(weight|bias)$", "|", name)
        if over in scales:
            scale_I = scales[over][0]
            out = out / (scale_I if out.dim() == 1 else scale_I[:, None])
        return tensor if out is tensor else out.to(tensor.dtype)

    return change


def _activations(model: Any, rows: list[list[int]], tell: OnProgress) -> dict[str, Any]:
    """`layer|matrix` to the largest magnitude of each of its inputs over all tokens."""
    import torch

    largest: dict[str, Any] = {}
    wanted = {names[0] for names in FOLLOWERS.values()}

    def watch(key: str) -> Callable[[Any, Any], None]:
        def see(_: Any, inputs: Any) -> None:
            seen_I = inputs[0].detach().abs().flatten(0, -2).amax(0)
            largest[key] = torch.maximum(largest[key], seen_I) if key in largest else seen_I

        return see

    hooks: list[Any] = []
    for name, module in model.named_modules():
        at, found, matrix = re.sub(r"(layers\.\d+)\.(.*)", r"\1|\2", name).partition("|")
        if found and matrix in wanted:
            hooks.append(module.register_forward_pre_hook(watch(f"{at}|{matrix}")))
    device = next(model.parameters()).device
    with torch.no_grad():
        for done, ids in enumerate(rows, 1):
            model(input_ids=torch.tensor([ids], device=device), use_cache=False)
            tell({"stage": "calibrate", "done": done, "total": len(rows)})
    for hook in hooks:
        hook.remove()
    return largest
