"""SmoothQuant's scales from activations, folded into norms and matrices; see `int8` for the formula."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reason_engine.compression.material import read
from reason_engine.training.callbacks import Tell

LEAST = 1e-5
FOLLOWERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.up_proj": ("mlp.down_proj",),
}
"""What the inverse of a scale goes into, and the matrices whose input it is."""


def folded(config: Any, model: Path, tell: Tell) -> Callable[[str, Any], Any]:
    """What makes of each tensor of the checkpoint the one that quantises well; the model computes the same.

    Raises SetupError where the text is too short.
    """
    import torch

    from reason_engine.training._models import load_model

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


def _activations(model: Any, rows: list[list[int]], tell: Tell) -> dict[str, Any]:
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
