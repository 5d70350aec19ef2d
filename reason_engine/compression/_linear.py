"""Which matrices of a checkpoint are quantised: the seven of a decoder layer, by the names they have in its files."""

from __future__ import annotations

import re
from pathlib import Path

from reason_engine.engines._checkpoint import read_json, tensor_names, weight_files
from reason_engine.errors import SetupError

LINEAR = re.compile(r"^model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)\.weight$")


def is_linear(name: str) -> bool:
    """Whether a tensor of that name is one of the seven."""
    return LINEAR.match(name) is not None


def check_linears(model: Path, multiple: int = 1) -> str:
    """What will be quantised, in a line. Raises SetupError for an architecture that is not of this form.

    `multiple`: of the widths of all matrices.
    """
    config = read_json(model / "config.json")
    kind, layers = str(config.get("model_type", "?")), int(config.get("num_hidden_layers") or 0)
    shapes = {
        name: entry["shape"] for path in weight_files(model) for name, entry in tensor_names(path).items()
    }
    found = {name: shape for name, shape in shapes.items() if is_linear(name)}
    if len(found) != 7 * layers or not layers:
        raise SetupError(
            f"{model}: a {kind} model is not known here: its layers are not the seven matrices of Qwen and Llama "
            f"({len(found)} found where {layers} layers have {7 * layers})"
        )
    if odd := next((name for name, shape in found.items() if shape[1] % multiple), None):
        raise SetupError(f"{model}: {odd} is {found[odd][1]} wide, which is no multiple of {multiple}")
    total = sum(_size(shape) for shape in shapes.values())
    share = sum(_size(shape) for shape in found.values()) / total
    return f"quantised: {len(found)} matrices, {100 * share:.0f} % of {total / 1e6:,.2f}M parameters"


def _size(shape: list[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
