"""The matrices that compression changes: the seven of a decoder layer, by the names they have in a checkpoint's files;
and the checkpoint written anew with each tensor as a method makes it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reason_engine.engines.checkpoint.folder import CONFIG, INDEX, ModelFolder, read_header
from reason_engine.errors import SetupError
from reason_engine.progress import OnProgress

MATRICES = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
LAYER_MATRIX = re.compile(rf"^model\.layers\.\d+\.({'|'.join(map(re.escape, MATRICES))})\.weight$")
Change = Callable[[str, Any], Mapping[str, Any]]
"""(name, tensor) to what stands in its place."""


def rewrite(model: Path, out: Path, change: Change, tell: OnProgress, stage: str, settings: Mapping[str, Any]) -> int:
    """Write every tensor of `model` as `change` makes it, file for file, and `config.json` with these settings.

    One file is held in memory at a time. Returns how many tensors became several.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    files = ModelFolder(model).weight_files
    total = sum(len(read_header(path)) for path in files)
    places: dict[str, str] = {}
    done = changed = size = 0
    for path in files:
        written: dict[str, Any] = {}
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a mapping)
                new = change(name, file.get_tensor(name))
                changed += len(new) > 1
                written |= {key: tensor.contiguous() for key, tensor in new.items()}
                done += 1
                tell({"stage": stage, "done": done, "total": total})
        save_file(written, out / path.name, metadata={"format": "pt"})
        (out / path.name).chmod(path.stat().st_mode)  # the library writes it for its owner alone
        places |= dict.fromkeys(written, path.name)
        size += sum(tensor.numel() * tensor.element_size() for tensor in written.values())
    if len(files) > 1:
        ModelFolder(out).write_json(INDEX, {"metadata": {"total_size": size}, "weight_map": places})
    ModelFolder(out).write_json(CONFIG, {**ModelFolder(model).config, **settings})
    return changed


def is_layer_matrix(name: str) -> bool:
    """Whether a tensor of that name is one of the seven of its layer."""
    return LAYER_MATRIX.match(name) is not None


def check_matrices(model: Path, multiple: int = 1) -> str:
    """What will be compressed, in a line. Raises SetupError for an architecture that is not of this form.

    `multiple`: of the widths of all matrices.
    """
    files = ModelFolder(model)
    config, shapes = files.config, files.shapes
    kind, layers = str(config.get("model_type", "?")), int(config.get("num_hidden_layers") or 0)
    found = {name: shape for name, shape in shapes.items() if is_layer_matrix(name)}
    if len(found) != 7 * layers or not layers:
        raise SetupError(
            f"{model}: a {kind} model is not known here: its layers are not the seven matrices of Qwen and Llama "
            f"({len(found)} found where {layers} layers have {7 * layers})"
        )
    if odd := next((name for name, shape in found.items() if shape[1] % multiple), None):
        raise SetupError(f"{model}: {odd} is {found[odd][1]} wide, which is no multiple of {multiple}")
    total = sum(map(math.prod, shapes.values()))
    share = sum(map(math.prod, found.values())) / total
    return f"quantised: {len(found)} matrices, {100 * share:.0f} % of {total / 1e6:,.2f}M parameters"
