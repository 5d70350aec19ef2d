"""Structured pruning of depth: the layers that change their input the least are dropped.

    BI_i = 1 − E[ cos(h_i, h_{i+1}) ]        h_i: residual stream before layer i, mean over calibration tokens

Block influence, Men et al. 2024, ShortGPT, arXiv:2403.03853, eq. 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from reason_engine.compression._walk import Walk
from reason_engine.errors import SetupError
from reason_engine.training.callbacks import Tell

LAYER = re.compile(r"^(model\.layers\.)(\d+)(\..*)$")


def dropped_count(layers: int, rate: float) -> int:
    """The share rounded, one at least. Raises SetupError where no layer is left."""
    count = max(1, round(rate * layers))
    if count >= layers:
        raise SetupError(f"rate: {rate:g} of {layers} layers leaves none")
    return count


def influences(model: Any, rows: list[list[int]], tell: Tell) -> list[float]:
    """Block influence of every layer."""
    layers, walk = model.model.layers, Walk(model, rows)
    found: list[float] = []
    for index, layer in enumerate(layers):
        tell({"stage": "influence", "done": index, "total": len(layers)})
        found.append(walk.influence(layer))
    return found


def stays(scores: Sequence[float], count: int) -> list[int]:
    """Places of the layers that stay when the `count` of the least influence go."""
    gone = set(sorted(range(len(scores)), key=lambda index: scores[index])[:count])
    return [index for index in range(len(scores)) if index not in gone]


def renamed(name: str, kept: Sequence[int]) -> str | None:
    """A tensor's name once only these layers are left; None where it goes with its layer."""
    found = LAYER.match(name)
    if not found:
        return name
    index = int(found[2])
    return f"{found[1]}{kept.index(index)}{found[3]}" if index in kept else None


def settings(config: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """What `config.json` then says of the layers."""
    changed: dict[str, Any] = {"num_hidden_layers": len(kept)}
    if isinstance(kinds := config.get("layer_types"), list):
        changed["layer_types"] = [kinds[index] for index in kept]
    return changed
