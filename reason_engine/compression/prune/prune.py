"""Pruning: a share of the weights goes, and what is left may recover by distillation.

    width        whole MLP channels and groups of attention heads      a smaller dense model, faster everywhere
    depth        whole layers, by block influence                      a smaller dense model, faster everywhere
    magnitude, wanda, sparsegpt    single weights, any or 2:4          zeros, stored and multiplied like the rest

The rate is the share of the decoder layers' matrices; embedding, norms and output matrix stay. Each way's paper
stands in its own file: `_width`, `_depth`, `_sparse`, `_sparsegpt`; recovery in `_recover`, its law in `law`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from reason_engine.compression import Served, compressors
from reason_engine.compression.calibration_rows import has_source, read
from reason_engine.compression.config import Compression
from reason_engine.compression.prune import structured as _depth
from reason_engine.compression.prune import structured as _width
from reason_engine.compression.prune.recover import Recover
from reason_engine.compression.shards import check_linears
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.progress import OnProgress, silent

STRUCTURED = ("width", "depth")
SEXAGESIMAL = 124
"""What YAML makes of 2:4."""


class PruneConfig(Compression):
    """`data` or `mixture` calibrates; by magnitude alone needs neither."""

    by: Literal["width", "depth", "magnitude", "wanda", "sparsegpt"] = "width"
    rate: float = Field(0.3, gt=0, lt=1, description="Share of the layers' matrices that goes")
    pattern: Literal["2:4"] | None = Field(None, description="Two of each four single weights go")
    multiple: int = Field(32, ge=1, description="Channels that stay are a multiple of this (width)")
    kv_heads: int | None = Field(
        None, ge=1, description="Key-value heads that stay; none: by the rate (width)"
    )
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
        if not has_source(self) and (self.by != "magnitude" or self.recover is not None):
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
        said = check_linears(model, 4 if config.pattern else 1).replace("quantised: ", "to prune: ")
        if config.by == "width":
            before, after = _width.sizes(model, config.rate, config.multiple, config.kv_heads)
            gone = 1 - after.parameters / before.parameters
            return [
                f"{said}; {100 * gone:.1f} % of them go: {before.inner} channels to {after.inner}, "
                f"{before.kv_heads} key-value heads to {after.kv_heads}"
            ]
        if config.by == "depth":
            count = _depth.dropped_count(shape.layers, config.rate)
            return [f"{said}; {count} of {shape.layers} layers go"]
        return [said, "zeros are stored, and served, as any other number: neither smaller nor faster"]

    def served(self, config: PruneConfig) -> Served:
        if config.by in STRUCTURED:
            return Served("yes", "yes", "yes")
        how = "yes, as a dense model: no gain in speed"
        return Served(how, how, f"{how} (vLLM dropped 2:4 kernels)" if config.pattern else how)

    def compress(
        self, config: PruneConfig, model: Path, out: Path, tell: OnProgress = silent
    ) -> dict[str, Any]:
        """Prune, write, recover."""
        import torch

        from reason_engine.compression.prune.pruned_model import prune, write

        if config.threads:
            torch.set_num_threads(config.threads)
        material = read(config, model) if has_source(config) else None
        if material is not None:
            tell({"note": f"calibrated on {material.source}"})
        pruned = prune(config, model, material.calibration if material else [], tell)
        write(pruned, model, out, tell)
        figures = {**pruned.figures, "pruned": 1 - pruned.left / pruned.parameters}
        if config.recover is None or material is None:
            return figures
        return figures | _recovered(config, config.recover, pruned, material, model, out, tell)


def _recovered(
    config: PruneConfig, wish: Recover, pruned: Any, material: Any, model: Path, out: Path, tell: OnProgress
) -> dict[str, Any]:
    from reason_engine.compression.law.points import append_points
    from reason_engine.compression.prune import recover as rows
    from reason_engine.compression.prune.recover import Job, points_of, recover
    from reason_engine.training.common.models import load_tokenizer

    place = out / ".recovery"
    place.mkdir()
    try:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (model / name).is_file():
                shutil.copyfile(model / name, out / name)  # the student is read as a model of its own
        learned: Path | None = None
        if config.data is None:
            held: Any = rows.drawn_held(config, wish.held)
        else:
            learned = place / "rows.jsonl"
            held = rows.split(config, material, load_tokenizer(model), wish.held, learned)
        job = Job(
            out,
            model,
            learned,
            config.mixture,
            held,
            config.length,
            rows.learned_seed(config),
            config.threads,
        )
        found = recover(job, wish, pruned.zeros, place / "run", tell)
        for file in ("config.json", *(f.name for f in (place / "run").glob("*.safetensors*"))):
            os.replace(place / "run" / file, out / file)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    share = 1 - pruned.left / pruned.parameters
    points = points_of(found, config.by, model.name, pruned.parameters, share, config.seed)
    append_points(wish.points or out.parent / "points.jsonl", points)
    return {"recovered": found}
