"""A checkpoint's safetensors rewritten tensor by tensor, file for file, with a config that says how."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reason_engine.engines._checkpoint import read_json, tensor_names, weight_files
from reason_engine.training.callbacks import Tell

INDEX = "model.safetensors.index.json"
Change = Callable[[str, Any], Mapping[str, Any]]
"""(name, tensor) to what stands in its place."""


def rewrite(
    model: Path, out: Path, change: Change, tell: Tell, stage: str, quantization: Mapping[str, Any] | None
) -> int:
    """Write every tensor of `model` as `change` makes it, and the config with `quantization_config`.

    One file is held in memory at a time. Returns how many tensors became several.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    files = weight_files(model)
    total = sum(len(tensor_names(path)) for path in files)
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
        index = {"metadata": {"total_size": size}, "weight_map": places}
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    config = dict(read_json(model / "config.json"))
    if quantization is not None:
        config["quantization_config"] = quantization
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    return changed
