"""W8A8: 8-bit weights with one scale an output channel, 8-bit activations with one scale a token, taken as they come.

    W ≈ s_o · round(W / s_o),  s_o = max_i |W_oi| / 127         round to nearest, symmetric

Written as compressed-tensors `int-quantized`, which vLLM and the embedded engine multiply with as integers. Embedding,
norms and output matrix stay as they are.

`smooth` is SmoothQuant (Xiao et al. 2022, arXiv 2211.10438, equation 4): what the activations' outliers cost moves into
the weights, s_j = max|X_j|^α / max|W_j|^(1-α), X' = X / s, W' = W s. Departure from the paper: 1 / s goes into the rows
of `up_proj` too, for the input of `down_proj`, which is linear in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from reason_engine.compression import CompressionConfig, Served, compressors
from reason_engine.compression.calibration import read_calibration
from reason_engine.compression.matrices import check_matrices, is_layer_matrix, rewrite
from reason_engine.progress import OnProgress, silent


class Int8Config(CompressionConfig):
    """Without `smooth` nothing is calibrated."""

    smooth: float | None = Field(
        None, gt=0, lt=1, description="α of SmoothQuant; none: round to nearest only. 0.5 is the paper's"
    )

    @model_validator(mode="after")
    def smooth_needs_text(self) -> Int8Config:
        if self.smooth is not None and not self.has_text:
            raise ValueError("smooth looks at activations: name data or a mixture to calibrate on")
        return self


@compressors.register("int8")
class Int8:
    """8-bit weights and activations."""

    config: ClassVar[type[Int8Config]] = Int8Config
    summary: ClassVar[str] = "8-bit weights and activations (W8A8), with SmoothQuant as an option"

    def check(self, config: Int8Config, model: Path) -> list[str]:
        return [check_matrices(model)]

    def served(self, config: Int8Config) -> Served:
        return Served("yes, weights stay 8-bit", "yes, W8A8", "yes, W8A8")

    def compress(self, config: Int8Config, model: Path, out: Path, tell: OnProgress = silent) -> dict[str, Any]:
        """Quantise file by file, so that memory holds one matrix at a time."""
        smoothed = None if config.smooth is None else smoothing(config, config.smooth, model, tell)

        def quantised(name: str, tensor: Any) -> dict[str, Any]:
            tensor = smoothed(name, tensor) if smoothed else tensor
            return round_to_nearest(name, tensor) if is_layer_matrix(name) else {name: tensor}

        settings = {"quantization_config": quantization_config()}
        count = rewrite(model, out, quantised, tell, "quantise", settings)
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
    weights = {**number, "strategy": "channel", "dynamic": False}
    inputs = {**number, "strategy": "token", "dynamic": True}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
    about = {"quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed"}
    return {**about, "config_groups": {"group_0": group}, "ignore": ["lm_head"], "kv_cache_scheme": None}


LEAST = 1e-5
"""Below which no magnitude counts."""
FOLLOWERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.up_proj": ("mlp.down_proj",),
}
"""What the inverse of a scale goes into, and the matrices whose input it is."""


def smoothing(config: CompressionConfig, alpha: float, model: Path, tell: OnProgress) -> Callable[[str, Any], Any]:
    """What makes of each tensor of the checkpoint the one that quantises well: SmoothQuant's scales go into norms and
    matrices, and the model computes the same.

    Raises SetupError where the text is too short.
    """
    import torch

    from reason_engine.training.common.models import load_model

    rows = read_calibration(config, model)
    tell({"note": f"calibrated on {rows.source}"})
    loaded, _ = load_model(model)
    largest = _largest_inputs(loaded.eval(), rows.calibration, tell)
    weights = loaded.state_dict()
    times, over = dict[str, Any](), dict[str, Any]()
    for at in sorted({name.rpartition("|")[0] for name in largest}):
        for source, followers in FOLLOWERS.items():
            largest_IJ = torch.stack([weights[f"{at}.{name}.weight"].abs().amax(0) for name in followers])
            weight_I = largest_IJ.amax(0).clamp_min(LEAST)
            input_I = largest[f"{at}|{followers[0]}"].clamp_min(LEAST)
            scale_I = (input_I**alpha / weight_I ** (1 - alpha)).cpu()
            times |= {f"{at}.{name}.weight": scale_I for name in followers}
            over[f"{at}.{source}"] = scale_I

    def change(name: str, tensor: Any) -> Any:
        out = tensor.float()
        if name in times:
            out = out * times[name]
        if (module := name.rpartition(".")[0]) in over:
            scale_I = over[module]
            out = out / (scale_I if out.dim() == 1 else scale_I[:, None])
        return tensor if out is tensor else out.to(tensor.dtype)

    return change


def _largest_inputs(model: Any, rows: list[list[int]], tell: OnProgress) -> dict[str, Any]:
    """`layer|matrix` to the largest magnitude of each of its inputs over all tokens."""
    import torch

    largest: dict[str, Any] = {}
    wanted = {names[0] for names in FOLLOWERS.values()}

    def record(key: str) -> Callable[[Any, Any], None]:
        def hook(_: Any, inputs: Any) -> None:
            seen_I = inputs[0].detach().abs().flatten(0, -2).amax(0)
            largest[key] = torch.maximum(largest[key], seen_I) if key in largest else seen_I

        return hook

    device = next(model.parameters()).device
    with torch.no_grad(), ExitStack() as hooks:
        for name, module in model.named_modules():
            key = re.sub(r"(layers\.\d+)\.(.*)", r"\1|\2", name)
            if key.partition("|")[2] in wanted:
                hooks.enter_context(module.register_forward_pre_hook(record(key)))
        for done, ids in enumerate(rows, 1):
            model(input_ids=torch.tensor([ids], device=device), use_cache=False)
            tell({"stage": "calibrate", "done": done, "total": len(rows)})
    return largest
