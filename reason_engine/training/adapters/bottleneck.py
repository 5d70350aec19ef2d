"""Bottleneck adapters: two small layers after each attention and each MLP, the identity before they learn.

    h ← h + W_up gelu(W_down h)          h the sublayer's output, before it is added to the residual stream

Houlsby et al. 2019, arXiv:1902.00751, section 2.1. Departures: the norms of the model stay frozen, W_up starts at zero
where the paper starts near it. Not linear, so they cannot be merged into the weights; PEFT has none.

The folder: `adapter_config.json` with `peft_type: BOTTLENECK` and `width`, and `adapter_model.safetensors` with
`layers.{i}.{attention|mlp}.{down|up}.{weight|bias}`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from reason_engine.training.common.models import save_adapter


class Bottleneck(nn.Module):
    """`down` and `up` of one place."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(hidden, width), nn.Linear(width, hidden)
        nn.init.normal_(self.down.weight, std=hidden**-0.5)
        for still in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(still)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        return hidden_BTD + self.up(gelu(self.down(hidden_BTD)))


def add_bottlenecks(model: Any, width: int) -> dict[str, Bottleneck]:
    """Freeze the model and hang one adapter behind each sublayer; they become modules of the model."""
    model.requires_grad_(False)
    found: dict[str, Bottleneck] = {}
    device = next(model.parameters()).device
    for number, layer in enumerate(model.model.layers):
        for name, part in (("attention", layer.self_attn), ("mlp", layer.mlp)):
            made = Bottleneck(model.config.hidden_size, width).to(device)
            layer.add_module(f"{name}_bottleneck", made)
            part.register_forward_hook(_hook(made))
            found[f"layers.{number}.{name}"] = made
    return found


def save_bottlenecks(adapters: dict[str, Bottleneck], base: Path, width: int, out: Path) -> None:
    """Write the adapter's folder."""
    tensors = {f"{at}.{name}": t for at, one in adapters.items() for name, t in one.state_dict().items()}
    settings = {"peft_type": "BOTTLENECK", "width": width, "base_model_name_or_path": str(base)}
    save_adapter(tensors, settings, out)


def load_bottlenecks(model: Any, folder: Path, width: int) -> None:
    """Hang a written adapter onto its base."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    for at, one in add_bottlenecks(model, width).items():
        with torch.no_grad():
            for name, parameter in one.named_parameters():
                parameter.copy_(tensors[f"{at}.{name}"])


def _hook(adapter: Bottleneck) -> Any:
    def after(module: nn.Module, inputs: Any, output: Any) -> Any:
        del module, inputs
        return (adapter(output[0]), *output[1:]) if isinstance(output, tuple) else adapter(output)

    return after
