"""Pruning: a share of the weights goes, and what is left may recover by distillation.

    width        whole MLP channels and groups of attention heads      a smaller dense model, faster everywhere
    depth        whole layers, by block influence                      a smaller dense model, faster everywhere
    magnitude, wanda, sparsegpt    single weights, any or 2:4          zeros, stored and multiplied like the rest

The rate is the share of the decoder layers' matrices; embedding, norms and output matrix stay. The papers stand in
`structured` and `unstructured`, recovery in `recover`, its law in `compression.law`. The checkpoint is written from the
one before, tensor by tensor in its own precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from reason_engine.compression import CompressionConfig, Served, compressors
from reason_engine.compression.calibration import read_calibration
from reason_engine.compression.law import append_points
from reason_engine.compression.layerwise import LayerwiseRun
from reason_engine.compression.matrices import check_matrices, is_layer_matrix, rewrite
from reason_engine.compression.prune import structured
from reason_engine.compression.prune.recover import Recover, points_of, recover
from reason_engine.compression.prune.unstructured import zero_weights
from reason_engine.engines.checkpoint.folder import ModelFolder
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.progress import OnProgress, silent

STRUCTURED = ("width", "depth")
SEXAGESIMAL = 124
"""What YAML makes of 2:4."""


class PruneConfig(CompressionConfig):
    """`data` or `mixture` calibrates; by magnitude alone needs neither."""

    by: Literal["width", "depth", "magnitude", "wanda", "sparsegpt"] = "width"
    rate: float = Field(0.3, gt=0, lt=1, description="Share of the layers' matrices that goes")
    pattern: Literal["2:4"] | None = Field(None, description="Two of each four single weights go")
    multiple: int = Field(32, ge=1, description="Channels that stay are a multiple of this (width)")
    kv_heads: int | None = Field(None, ge=1, description="Key-value heads that stay; none: by the rate (width)")
    reconstruct: bool = Field(True, description="What stays makes up for what goes, by least squares (width)")
    recover: Recover | None = None

    @field_validator("pattern", mode="before")
    @classmethod
    def written(cls, value: Any) -> Any:
        return "2:4" if value == SEXAGESIMAL else value

    @model_validator(mode="after")
    def fits_together(self) -> PruneConfig:
        if self.pattern is not None and self.by in STRUCTURED:
            raise ValueError(f"pattern: is of single weights; by {self.by} takes whole {self.by}")
        if self.pattern is not None and "rate" in self.model_fields_set and self.rate != 0.5:
            raise ValueError("pattern: 2:4 is a rate of 0.5: leave rate out")
        if not self.has_text and (self.by != "magnitude" or self.recover is not None):
            what = f"by {self.by} looks at activations" if self.by != "magnitude" else "recover needs rows"
            raise ValueError(f"{what}: name data or a mixture")
        return self


@compressors.register("prune")
class Prune:
    """Weights, channels, heads or layers."""

    config: ClassVar[type[PruneConfig]] = PruneConfig
    summary: ClassVar[str] = (
        "pruning: width, depth, or single weights (magnitude, Wanda, SparseGPT, 2:4), with recovery"
    )

    def check(self, config: PruneConfig, model: Path) -> list[str]:
        shape = read_shape(model)
        found = check_matrices(model, 4 if config.pattern else 1).replace("quantised: ", "to prune: ")
        if config.by == "width":
            before, after = structured.layer_sizes(model, config.rate, config.multiple, config.kv_heads)
            gone = 1 - after.parameters / before.parameters
            return [
                f"{found}; {100 * gone:.1f} % of them go: {before.inner} channels to {after.inner}, "
                f"{before.kv_heads} key-value heads to {after.kv_heads}"
            ]
        if config.by == "depth":
            count = structured.dropped_count(shape.layers, config.rate)
            return [f"{found}; {count} of {shape.layers} layers go"]
        return [found, "zeros are stored, and served, as any other number: neither smaller nor faster"]

    def served(self, config: PruneConfig) -> Served:
        if config.by in STRUCTURED:
            return Served("yes", "yes", "yes")
        how = "yes, as a dense model: no gain in speed"
        return Served(how, how, f"{how} (vLLM dropped 2:4 kernels)" if config.pattern else how)

    def compress(self, config: PruneConfig, model: Path, out: Path, tell: OnProgress = silent) -> dict[str, Any]:
        """Prune, write, recover."""
        import torch

        if config.threads:
            torch.set_num_threads(config.threads)
        rows = read_calibration(config, model) if config.has_text else None
        if rows is not None:
            tell({"note": f"calibrated on {rows.source}"})
        pruned = prune_model(config, model, rows.calibration if rows else [], tell)
        write(pruned, model, out, tell)
        figures = {**pruned.figures, "pruned": 1 - pruned.left / pruned.parameters}
        if config.recover is None or rows is None:
            return figures
        found = recover(config, config.recover, model, out, rows, pruned.zeros, tell)
        points = points_of(found, config.by, model.name, pruned.parameters, figures["pruned"], config.seed)
        append_points(config.recover.points or out.parent / "points.jsonl", points)
        return {**figures, "recovered": found}


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


def prune_model(config: PruneConfig, folder: Path, rows: list[list[int]], tell: OnProgress) -> Pruned:
    """The model pruned in memory, by what the config says."""
    from reason_engine.training.common.models import load_model

    model, _ = load_model(folder)
    model.eval().requires_grad_(False)
    total = sum(parameter.numel() for parameter in model.parameters())
    run = LayerwiseRun(model, rows, config.precision) if rows and config.by != "magnitude" else None
    if config.by == "width" and run is not None:
        before, after = structured.layer_sizes(folder, config.rate, config.multiple, config.kv_heads)
        structured.narrow_layers(model, run, before, after, config.reconstruct, tell)
        heads = {"num_attention_heads": after.heads, "num_key_value_heads": after.kv_heads}
        settings = {"intermediate_size": after.inner, **heads}
        if after.kv_heads < before.kv_heads:
            settings["head_dim"] = after.head_dim  # else read off the number of heads
        left = sum(parameter.numel() for parameter in model.parameters())
        return Pruned(_layer_tensors(model), total, left, settings)
    if config.by == "depth" and run is not None:
        scores = structured.block_influences(model, run, tell)
        kept = structured.kept_layers(scores, structured.dropped_count(len(scores), config.rate))
        gone = [layer for index, layer in enumerate(model.model.layers) if index not in kept]
        left = total - sum(parameter.numel() for layer in gone for parameter in layer.parameters())
        settings = structured.depth_settings(ModelFolder(folder).config, kept)
        return Pruned({}, total, left, settings, kept, figures={"influence": scores, "layers": kept})
    fours = config.pattern is not None
    zeros = zero_weights(model, run, config.by, 0.5 if fours else config.rate, fours, tell)
    left = total - int(sum(gone.sum() for gone in zeros.values()))
    return Pruned(_layer_tensors(model), total, left, zeros=zeros)


def write(pruned: Pruned, model: Path, out: Path, tell: OnProgress) -> None:
    """The checkpoint in `out`."""

    def change(name: str, tensor: Any) -> dict[str, Any]:
        named = name if pruned.kept is None else structured.renamed_tensor(name, pruned.kept)
        if named is None:
            return {}
        return {named: pruned.tensors[name].to(tensor.dtype) if name in pruned.tensors else tensor}

    rewrite(model, out, change, tell, "write", pruned.settings)


def _layer_tensors(model: Any) -> dict[str, Any]:
    """Matrices and biases of the layers, by name."""
    return {
        name: tensor.cpu()
        for name, tensor in model.state_dict().items()
        if is_layer_matrix(name) or is_layer_matrix(f"{name.removesuffix('.bias')}.weight")
    }
