"""Structured pruning. Width: whole channels of the MLP and whole groups of attention heads go, equally many a layer.

What a channel or head adds to its output matrix W over the calibration tokens is its importance, as Wanda's score of
single weights (arXiv:2306.11695) summed over the column, in the spirit of Minitron (Muralidharan et al. 2024,
arXiv:2407.14679, section 2.2):

    channel j    Σ_o (W_oj ‖X_j‖₂)²         group: the sum over the columns of its query heads

What stays may make up for what goes by least squares on the same tokens (the closed form of ZipLM, Kurtic et al. 2023,
arXiv:2302.04089, eq. 4, for all columns at once):

    W' = W G[:, K] (G[K, K] + λI)⁻¹,   G = XᵀX,   K: the columns that stay

A group is one key-value head with its query heads. The rest of a layer and the residual stream keep their sizes, so the
result is an ordinary dense model.

Depth: the layers that change their input the least are dropped.

    BI_i = 1 − E[ cos(h_i, h_{i+1}) ]        h_i: residual stream before layer i, mean over calibration tokens

Block influence, Men et al. 2024, ShortGPT, arXiv:2403.03853, eq. 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reason_engine.compression.layerwise import LayerwiseRun
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.errors import SetupError
from reason_engine.progress import OnProgress

RIDGE = 0.01


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """Of one layer."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int

    @property
    def parameters(self) -> int:
        """Of its seven matrices."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.inner


def layer_sizes(folder: Path, rate: float, multiple: int, kv_heads: int | None) -> tuple[LayerSizes, LayerSizes]:
    """Of a layer of this model before and after. Raises SetupError where the rate cannot be met."""
    shape, inner = read_shape(folder), int(ModelFolder(folder).config["intermediate_size"])
    before = LayerSizes(shape.hidden, shape.heads, shape.kv_heads, shape.head_dim, inner)
    # vLLM takes the size of a Qwen2 head from the number of heads, so these cannot become fewer.
    heads_may_go = shape.architecture != "Qwen2ForCausalLM"
    if kv_heads is not None and kv_heads != shape.kv_heads and not heads_may_go:
        raise SetupError("kv_heads: vLLM reads the size of a Qwen2 head off their number: all must stay")
    return before, sizes_after(before, rate, multiple, kv_heads, heads_may_go)


def sizes_after(before: LayerSizes, rate: float, multiple: int, kv_heads: int | None, heads_may_go: bool) -> LayerSizes:
    """The sizes after at least the share `rate` of a layer's matrices is gone: key-value heads first (the share
    rounded down, unless `kv_heads` says how many stay), channels for the rest. Raises SetupError where they cannot."""
    if kv_heads is None:
        kv_heads = before.kv_heads - int(rate * before.kv_heads) if heads_may_go else before.kv_heads
    if not 1 <= kv_heads <= before.kv_heads:
        raise SetupError(f"kv_heads: must be 1 to {before.kv_heads}, the number before, is {kv_heads}")
    each = before.heads // before.kv_heads
    fewer = LayerSizes(before.hidden, each * kv_heads, kv_heads, before.head_dim, before.inner)
    left = round((1 - rate) * before.parameters) - (fewer.parameters - 3 * before.hidden * before.inner)
    inner = min(left // (3 * before.hidden) // multiple * multiple, before.inner)
    if inner < multiple:
        most = 1 - (fewer.parameters - 3 * before.hidden * (before.inner - multiple)) / before.parameters
        raise SetupError(
            f"rate: {rate:g} of a layer cannot be pruned with {multiple} of {before.inner} channels and {kv_heads} of "
            f"{before.kv_heads} key-value heads left; at most {max(0.0, most):.2f}, or less with fewer kv_heads"
        )
    return LayerSizes(before.hidden, fewer.heads, kv_heads, before.head_dim, inner)


def narrow_layers(
    model: Any, run: LayerwiseRun, before: LayerSizes, after: LayerSizes, reconstruct: bool, tell: OnProgress
) -> None:
    """Cut the model's layers in place, each calibrated behind the ones cut already."""
    layers = model.model.layers
    for index, layer in enumerate(layers):
        tell({"stage": "prune", "done": index, "total": len(layers)})
        attention, mlp = layer.self_attn, layer.mlp
        if after.kv_heads < before.kv_heads:
            gram_II, squares_I = _inputs(run, layer, "self_attn.o_proj", reconstruct)
            wide = before.heads // before.kv_heads * before.head_dim
            score_G = importance(attention.o_proj.weight, squares_I).reshape(-1, wide).sum(1)
            groups = highest(score_G, after.kv_heads)
            columns = columns_of(groups, wide)
            keep_columns(attention.o_proj, columns, gram_II)
            keep_rows(attention.q_proj, columns)
            for linear in (attention.k_proj, attention.v_proj):
                keep_rows(linear, columns_of(groups, before.head_dim))
        if after.inner < before.inner:
            gram_II, squares_I = _inputs(run, layer, "mlp.down_proj", reconstruct)
            channels = highest(importance(mlp.down_proj.weight, squares_I), after.inner)
            keep_columns(mlp.down_proj, channels, gram_II)
            for linear in (mlp.gate_proj, mlp.up_proj):
                keep_rows(linear, channels)
        run.advance(layer)
    tell({"stage": "prune", "done": len(layers), "total": len(layers)})


def _inputs(run: LayerwiseRun, layer: Any, name: str, whole: bool) -> tuple[Any | None, Any]:
    """The gram of the matrix's inputs, where the whole of it is wanted, and its diagonal."""
    if not whole:
        return None, run.squares(layer, (name,))[name]
    gram_II = run.grams(layer, (name,))[name]
    return gram_II, gram_II.diagonal()


def importance(weight_OI: Any, squares_I: Any) -> Any:
    """Σ_o (W_oj ‖X_j‖₂)², [I]."""
    return weight_OI.detach().float().square().sum(0) * squares_I


def highest(scores: Any, count: int) -> Any:
    """Places of the highest, in order."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def columns_of(groups: Any, width: int) -> Any:
    """Places of all columns of these groups."""
    import torch

    return (groups[:, None] * width + torch.arange(width, device=groups.device)).reshape(-1)


def keep_rows(linear: Any, rows: Any) -> None:
    """Only these outputs."""
    linear.weight.data = linear.weight.data[rows].contiguous()
    if linear.bias is not None:
        linear.bias.data = linear.bias.data[rows].contiguous()
    linear.out_features = len(rows)


def keep_columns(linear: Any, columns: Any, gram_II: Any | None) -> None:
    """Only these inputs; with a gram they make up for the others."""
    weight_OI = linear.weight.data
    kept_OK = weight_OI[:, columns] if gram_II is None else reconstructed(weight_OI, gram_II, columns)
    linear.weight.data = kept_OK.to(weight_OI.dtype).contiguous()
    linear.in_features = len(columns)


def reconstructed(weight_OI: Any, gram_II: Any, columns: Any) -> Any:
    """W G[:, K] (G[K, K] + λI)⁻¹, where λI draws towards W[:, K]."""
    import torch

    gram_II, weight_OI = gram_II.double(), weight_OI.double()
    some_KK = gram_II[columns][:, columns]
    ridge = RIDGE * some_KK.diagonal().mean().clamp_min(1e-12)
    system_KK = some_KK + ridge * torch.eye(len(columns), device=gram_II.device, dtype=gram_II.dtype)
    wanted_OK = weight_OI @ gram_II[:, columns] + ridge * weight_OI[:, columns]
    return torch.linalg.solve(system_KK, wanted_OK.T).T.float()


LAYER = re.compile(r"^(model\.layers\.)(\d+)(\..*)$")


def dropped_count(layers: int, rate: float) -> int:
    """The share rounded, one at least. Raises SetupError where no layer is left."""
    count = max(1, round(rate * layers))
    if count >= layers:
        raise SetupError(f"rate: {rate:g} of {layers} layers leaves none")
    return count


def block_influences(model: Any, run: LayerwiseRun, tell: OnProgress) -> list[float]:
    """Block influence of every layer."""
    layers, found = model.model.layers, list[float]()
    for index, layer in enumerate(layers):
        tell({"stage": "influence", "done": index, "total": len(layers)})
        found.append(run.influence(layer))
    return found


def kept_layers(scores: Sequence[float], count: int) -> list[int]:
    """Places of the layers that stay when the `count` of the least influence go."""
    gone = set(sorted(range(len(scores)), key=lambda index: scores[index])[:count])
    return [index for index in range(len(scores)) if index not in gone]


def renamed_tensor(name: str, kept: Sequence[int]) -> str | None:
    """A tensor's name once only these layers are left; None where it goes with its layer."""
    found = LAYER.match(name)
    if not found:
        return name
    index = int(found[2])
    return f"{found[1]}{kept.index(index)}{found[3]}" if index in kept else None


def depth_settings(config: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """What `config.json` then says of the layers."""
    changed: dict[str, Any] = {"num_hidden_layers": len(kept)}
    if isinstance(kinds := config.get("layer_types"), list):
        changed["layer_types"] = [kinds[index] for index in kept]
    return changed
