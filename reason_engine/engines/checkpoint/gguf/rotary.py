"""Rotary positions of a GGUF file as `rope_parameters` of a `config.json`.

Llama 3's stretched wavelengths come as a tensor of divisors, one a frequency, whose settings are lost; they are told as
`longrope` with one list for all lengths, which means the same.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from reason_engine.engines.checkpoint.gguf.header import Header
from reason_engine.engines.checkpoint.gguf.metadata import Metadata
from reason_engine.errors import ModelLoadError

FACTORS = "rope_freqs.weight"


def rotary(meta: Metadata, size: int) -> dict[str, Any]:
    theta = meta.number("rope.freq_base", 10000.0)
    kind = meta.get("rope.scaling.type", "linear")
    factor = meta.number("rope.scaling.factor", meta.number("rope.scale_linear", 0.0)) or 1.0
    attention = meta.number("rope.scaling.attn_factor", 1.0)
    divisors = _divisors(meta.header, size)
    if kind not in ("none", "linear", "yarn"):
        raise meta.refused("rope.scaling.type", "none, linear and yarn are read")
    if kind == "none":
        factor = 1.0
    if divisors is not None and factor != 1.0:
        raise meta.refused("rope.scaling.factor", f"the tensor {FACTORS} scales too")
    if attention != 1.0 and kind != "yarn":
        raise meta.refused("rope.scaling.attn_factor")
    made: dict[str, Any] = {"rope_theta": theta, "rope_type": "default"}
    if divisors is not None:
        return made | {"rope_type": "longrope", "short_factor": divisors, "long_factor": divisors,
                       "factor": 1.0, "attention_factor": 1.0}  # fmt: skip
    if kind == "yarn" and factor > 1.0:
        return made | {
            "rope_type": "yarn", "factor": factor,
            "original_max_position_embeddings": meta.whole(
                "rope.scaling.original_context_length", meta.whole("context_length")
            ),
            "beta_fast": meta.number("rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": meta.number("rope.scaling.yarn_beta_slow", 1.0),
            "attention_factor": attention * (0.1 * math.log(factor) + 1.0),
        }  # fmt: skip
    return made if factor == 1.0 else made | {"rope_type": "linear", "factor": factor}


def _divisors(header: Header, size: int) -> list[float] | None:
    found = header.tensors.get(FACTORS)
    if found is None:
        return None
    if found.kind != 0 or found.shape != (size // 2,):
        raise ModelLoadError(f"{header.path}: tensor {FACTORS} should be {size // 2} numbers in fp32, one a frequency")
    with found.file.open("rb") as file:
        file.seek(found.start)
        values = list(struct.unpack(f"<{size // 2}f", file.read(found.size)))
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise ModelLoadError(f"{header.path}: tensor {FACTORS} holds a number that divides nothing")
    return values
