"""Quantisation-aware training: fine-tuned under the quantised weights, then stored on the very same grid.

Trains by `reason train sft` with its `qat` section (see `training/supervised/sft`), or takes a model that was
trained so: one with `qat.json` beside its weights is stored as it is. 4 bits in GPTQ's layout, 8 bits as the `int8`
method writes them. Nothing is rounded twice: what the last forward pass saw is what the file holds. The layout of 4-bit
codes is AutoGPTQ's, which vLLM, transformers and the embedded engine load:

qweight [I / 8, O]  eight codes of one output in an int32, the first in the lowest bits
qzeros  [I / group, O / 8]  the zeros less one, eight outputs in an int32; 8 throughout, since the grid is symmetric
scales  [I / group, O]  fp16          g_idx [I]  the group of each input
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from reason_engine.compression import CompressionConfig, Served, compressors
from reason_engine.compression.calibration import read_calibration
from reason_engine.compression.matrices import check_matrices, is_layer_matrix, rewrite
from reason_engine.compression.quantize.int8 import quantization_config as eight_bits
from reason_engine.compression.quantize.int8 import round_to_nearest
from reason_engine.errors import ModelLoadError, SetupError
from reason_engine.progress import OnProgress, silent, staged
from reason_engine.training.common.config import Frozen
from reason_engine.training.supervised.sft import GRID, Qat, codes4


class Train(Frozen):
    """As in `reason train sft`."""

    tokens: int = Field(ge=1, description="Tokens to train on")
    batch: int = Field(32, ge=1)
    micro_tokens: int = Field(2048, ge=16)
    optimiser: Literal["muon", "adamw"] = "muon"
    muon_rate: float = Field(0.002, gt=0)
    adamw_rate: float = Field(2e-4, gt=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    final: float = Field(0.01, ge=0, le=1, description="Share of the rate left at the end")
    precision: Literal["auto", "bf16", "fp32"] = "auto"


class QatConfig(CompressionConfig):
    """A grid and a training; neither for a model that was trained with `qat` before."""

    qat: Qat = Qat()
    train: Train | None = None

    @model_validator(mode="after")
    def has_rows(self) -> QatConfig:
        if self.train is not None and not self.has_text:
            raise ValueError("train needs rows: name data or a mixture")
        return self


@compressors.register("qat")
class QuantisationAware:
    """4 or 8 bits, trained for."""

    config: ClassVar[type[QatConfig]] = QatConfig
    summary: ClassVar[str] = "4 or 8 bits with quantisation-aware training, contrastive as an option"

    def check(self, config: QatConfig, model: Path) -> list[str]:
        grid = grid_of(config, model)
        found = check_matrices(model, grid.group if grid.bits == 4 else 1)
        how = f"on {config.train.tokens:,} tokens" if config.train else f"before, by the {GRID} of {model}"
        return [f"{found}; {grid.bits} bits, trained {how}"]

    def served(self, config: QatConfig) -> Served:
        if config.qat.bits == 8:
            return Served("yes, weights stay 8-bit", "yes, W8A8", "yes, W8A8")
        return Served("yes, weights stay 4-bit", "yes, 4-bit GPTQ", "yes, 4-bit GPTQ")

    def compress(self, config: QatConfig, model: Path, out: Path, tell: OnProgress = silent) -> dict[str, Any]:
        """Train, store."""
        grid, place = grid_of(config, model), out / ".training"
        try:
            trained = model if config.train is None else _trained(config, config.train, model, place, tell)
            count = store(trained, grid, out, tell)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return {"matrices": count, "grid": grid.grid()}


def grid_of(config: QatConfig, model: Path) -> Qat:
    """The one to train for, or the one that the model was trained for. Raises SetupError where there is neither."""
    if config.train is not None:
        return config.qat
    if not (model / GRID).is_file():
        raise SetupError(
            f"train.tokens: {model} was not trained for a grid (it has no {GRID}): say how long to train, "
            "as --set train.tokens=1000000, and on what"
        )
    try:
        found = Qat.model_validate(json.loads((model / GRID).read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{model / GRID}: {' '.join(str(error).split())}") from None
    if found.grid() != config.qat.grid():
        wanted = " ".join(f"--set qat.{name}={value}" for name, value in found.grid().items())
        raise SetupError(f"qat: {model} was trained for another grid: {wanted}")
    return found


def store(model: Path, grid: Qat, out: Path, tell: OnProgress) -> int:
    """Write the model on the grid; how many matrices were put on it."""
    import torch

    def change(name: str, tensor: Any) -> dict[str, Any]:
        if not is_layer_matrix(name):
            return {name: tensor.to(torch.bfloat16)}
        if grid.bits == 8:
            return round_to_nearest(name, tensor)
        return packed(name.removesuffix(".weight"), *codes4(tensor, grid.group))

    quantization = quantization_config(grid.group) if grid.bits == 4 else eight_bits()
    settings = {"quantization_config": quantization, "dtype": "bfloat16"}
    return rewrite(model, out, change, tell, "store", settings)


def _trained(config: QatConfig, train: Train, model: Path, place: Path, tell: OnProgress) -> Path:
    from reason_engine.compression.prune.recover import split_rows, training_options
    from reason_engine.training.common.models import load_tokenizer
    from reason_engine.training.supervised.sft import Sft, SftConfig

    place.mkdir()
    learned = None if config.data is None else place / "rows.jsonl"
    if learned is not None:
        split_rows(config, read_calibration(config, model), load_tokenizer(model), 1, learned)
    recipe = SftConfig(qat=config.qat, **train.model_dump(), **training_options(config, place, model, learned))
    Sft.train(recipe, recipe.out, staged(tell, "train", train.tokens))
    return recipe.out


def packed(at: str, code_OI: Any, scale_OG: Any) -> dict[str, Any]:
    """The four tensors of the matrix of that name."""
    import torch

    (outputs, inputs), groups = code_OI.shape, scale_OG.shape[1]
    zeros_GO = torch.full((groups, outputs), 8 - 1, dtype=torch.uint8)  # the zeros are 8, stored less one
    return {
        f"{at}.qweight": _eight(code_OI).t().contiguous(),
        f"{at}.qzeros": _eight(zeros_GO),
        f"{at}.scales": scale_OG.t().contiguous().half(),
        f"{at}.g_idx": torch.arange(inputs, dtype=torch.int32) // (inputs // groups),
    }


def quantization_config(group: int) -> dict[str, Any]:
    """What `config.json` says of the weights."""
    layout = {"desc_act": False, "lm_head": False, "checkpoint_format": "gptq", "pack_dtype": "int32"}
    return {"quant_method": "gptq", "bits": 4, "group_size": group, "sym": True, **layout}


def _eight(codes: Any) -> Any:
    """Eight codes of the last dimension in an int32."""
    import torch

    shifts = torch.arange(8, dtype=torch.int64) * 4
    words = (codes.reshape(*codes.shape[:-1], -1, 8).to(torch.int64) << shifts).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)
