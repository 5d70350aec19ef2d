"""A model pruned in memory, and its checkpoint written from the one before, tensor by tensor in its own precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reason_engine.compression.prune import structured as _depth
from reason_engine.compression.prune import structured as _width
from reason_engine.compression.prune import unstructured as _sparse
from reason_engine.compression.prune.layerwise import Walk
from reason_engine.compression.shards import is_linear, rewrite
from reason_engine.engines.checkpoint.folder import CONFIG, ModelFolder
from reason_engine.progress import OnProgress

MATRICES = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pruned:
    """`tensors`: what changed, by name; `kept`: layers that stay, where some go; `settings`: of `config.json`; `zeros`:
    True where a weight is pruned; `parameters` before and `left` after."""

    tensors: Mapping[str, Any]
    parameters: int
    left: int
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    kept: Sequence[int] | None = None
    zeros: Mapping[str, Any] = field(default_factory=dict[str, Any])
    figures: Mapping[str, Any] = field(default_factory=dict[str, Any])


def prune(config: Any, folder: Path, rows: list[list[int]], tell: OnProgress) -> Pruned:
    """By what the config says."""
    from reason_engine.training.common.models import load_model

    model, _ = load_model(folder)
    model.eval().requires_grad_(False)
    total = sum(parameter.numel() for parameter in model.parameters())
    if config.by == "width":
        before, after = _width.sizes(folder, config.rate, config.multiple, config.kv_heads)
        _width.narrow(model, rows, before, after, config.reconstruct, tell)
        settings = {
            "intermediate_size": after.inner,
            "num_attention_heads": after.heads,
            "num_key_value_heads": after.kv_heads,
        }
        if after.kv_heads < before.kv_heads:
            settings["head_dim"] = after.head_dim  # else read off the number of heads
        left = sum(parameter.numel() for parameter in model.parameters())
        return Pruned(_layers(model), total, left, settings)
    if config.by == "depth":
        scores = _depth.influences(model, rows, tell)
        kept = _depth.stays(scores, _depth.dropped_count(len(scores), config.rate))
        gone = [layer for index, layer in enumerate(model.model.layers) if index not in kept]
        left = total - sum(parameter.numel() for layer in gone for parameter in layer.parameters())
        settings = _depth.settings(ModelFolder(folder).config, kept)
        return Pruned({}, total, left, settings, kept, figures={"influence": scores, "layers": kept})
    zeros = _zeroed(model, config, rows, tell)
    return Pruned(_layers(model), total, total - int(sum(gone.sum() for gone in zeros.values())), zeros=zeros)


def write(pruned: Pruned, model: Path, out: Path, tell: OnProgress) -> None:
    """The checkpoint in `out`."""

    def change(name: str, tensor: Any) -> dict[str, Any]:
        named = name if pruned.kept is None else _depth.renamed(name, pruned.kept)
        if named is None:
            return {}
        return {named: pruned.tensors[name].to(tensor.dtype) if name in pruned.tensors else tensor}

    rewrite(model, out, change, tell, "write", None)
    made = ModelFolder(out)
    made.write_json(CONFIG, {**made.config, **pruned.settings})


def _zeroed(model: Any, config: Any, rows: list[list[int]], tell: OnProgress) -> dict[str, Any]:
    """Set single weights to zero in place; True where one is zero now, by name."""
    from reason_engine.compression.prune.unstructured import sparsegpt

    layers = model.model.layers
    walk = Walk(model, rows) if config.by != "magnitude" else None
    fours, zeros = config.pattern is not None, dict[str, Any]()
    rate = 0.5 if fours else config.rate
    for index, layer in enumerate(layers):
        tell({"stage": "prune", "done": index, "total": len(layers)})
        grams = walk.grams(layer, MATRICES) if walk else {}
        for name in MATRICES:
            linear = layer.get_submodule(name)
            weight_OI = linear.weight.data
            if config.by == "sparsegpt":
                linear.weight.data = sparsegpt(weight_OI, grams[name], rate, fours)
            else:
                score_OI = weight_OI.abs() if walk is None else _sparse.wanda(weight_OI, grams[name])
                gone_OI = (
                    _sparse.two_of_four(score_OI)
                    if fours
                    else _sparse.lowest(score_OI, rate, by_output=walk is not None)
                )
                linear.weight.data = weight_OI.masked_fill(gone_OI, 0.0)
            zeros[f"model.layers.{index}.{name}.weight"] = linear.weight.data == 0
        if walk:
            walk.step(layer)
    tell({"stage": "prune", "done": len(layers), "total": len(layers)})
    return zeros


def _layers(model: Any) -> dict[str, Any]:
    """Matrices and biases of the layers, by name."""
    state = model.state_dict()
    return {
        name: tensor.cpu()
        for name, tensor in state.items()
        if is_linear(name) or is_linear(f"{name.removesuffix('.bias')}.weight")
    }
