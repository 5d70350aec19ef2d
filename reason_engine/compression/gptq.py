"""GPTQ (Frantar et al. 2022, arXiv 2210.17323): weights in 4 bits, each column's error made up for by those after it.

    min ‖WX − ŴX‖²,  column by column:  δ = −(w_q − quant(w_q)) / [H⁻¹]_qq · [H⁻¹]_q:,   H = 2XXᵀ

Done by gptqmodel, the maintained successor of auto-gptq, in AutoGPTQ's file format, in a process of its own. One scale
a `group` of inputs; embedding, norms and output matrix stay as they are. A smaller group costs size and saves accuracy.
Columns are worked off by their activations, largest first, but within groups, so that the file's order stays plain.

8 bits: vLLM has a kernel for them on GPUs only (Marlin), and the embedded engine none; `int8` is served everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from reason_engine.compression import Served, compressors
from reason_engine.compression._gptqmodel import quantise, require
from reason_engine.compression._linear import check_linears
from reason_engine.compression.config import Compression
from reason_engine.compression.material import has_source, read
from reason_engine.engines.open import has_gpu
from reason_engine.errors import SetupError
from reason_engine.training.callbacks import Tell, silent


class GptqConfig(Compression):
    """`data` or `mixture` calibrates."""

    bits: Literal[4, 8] = 4
    group: Literal[32, 64, 128] = Field(128, description="Inputs that share a scale")
    damp: float = Field(0.05, gt=0, lt=1, description="Share of H's mean diagonal that is added to it")
    batch: int = Field(8, ge=1, description="Rows of a forward pass")

    @model_validator(mode="after")
    def text_is_named(self) -> GptqConfig:
        if not has_source(self):
            raise ValueError("gptq looks at activations: name data or a mixture to calibrate on")
        return self


@compressors.register("gptq")
class Gptq:
    """4-bit weights by GPTQ."""

    config: ClassVar[type[GptqConfig]] = GptqConfig
    summary: ClassVar[str] = "4-bit weights by GPTQ (8 bits for GPUs)"

    def check(self, config: GptqConfig, model: Path) -> list[str]:
        if config.bits == 8 and not has_gpu():
            raise SetupError(
                "bits: 8-bit GPTQ is served by vLLM on a GPU only, and there is none here; `reason compress int8` "
                "makes 8-bit weights that every engine serves"
            )
        found = check_linears(model, config.group)
        require()
        return [found]

    def served(self, config: GptqConfig) -> Served:
        if config.bits == 8:
            return Served("no", "no", "yes, W8A16")
        return Served("yes, weights stay 4-bit", "yes", "yes, W4A16")

    def compress(self, config: GptqConfig, model: Path, out: Path, tell: Tell = silent) -> dict[str, Any]:
        """Calibrate here, quantise in the process of its own."""
        material = read(config, model)
        tell({"note": f"calibrated on {material.source}"})
        job = {
            "model": str(model.absolute()),
            "out": str(out.absolute()),
            "rows": material.calibration,
            "batch": config.batch,
            "seed": config.seed,
            "threads": config.threads,
            "quantize": {
                "bits": config.bits,
                "group_size": config.group,
                "desc_act": False,
                "act_group_aware": True,
                "damp_percent": config.damp,
                "sym": True,
            },
        }
        quantise(job, tell)
        return {"bits": config.bits, "group": config.group, "calibration": material.source}
