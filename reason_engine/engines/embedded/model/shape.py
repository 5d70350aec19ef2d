"""What `config.json` says about a decoder, read without torch and refused clearly where it cannot be run.

Llama, Mistral, Qwen2 and Qwen3 share one layer: RMSNorm, grouped-query attention with rotary positions (Su et al.
2021, arXiv:2104.09864), RMSNorm, SwiGLU. Qwen2 adds biases to q, k and v; Qwen3 normalises each head of q and k.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from reason_engine.engines.checkpoint.checkpoint import Checkpoint, checkpoint_at
from reason_engine.engines.checkpoint.folder import SERVED, Scheme
from reason_engine.errors import ModelLoadError

HEADS = re.compile(r"For(SequenceClassification|TokenClassification|ProcessRewardModel|PrmModel)$")


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder. `frequencies` are the rotary angles per position, head_dim / 2 of them."""

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    eps: float
    frequencies: tuple[float, ...]
    rotary_scale: float
    tied: bool
    dtype: str
    scheme: Scheme | None = None
    """How the matrices of the layers are quantised."""

    @property
    def head_norm(self) -> bool:
        """Whether each head of q and k is normalised."""
        return self.architecture == "Qwen3ForCausalLM"


def read_shape(model: Path, *, heads: bool = False) -> Shape:
    """Read `config.json`. `heads`: also of a checkpoint with a classification head. Raises ModelLoadError naming the
    file and the field."""
    files = checkpoint_at(model)
    path = files.config_path
    architecture = HEADS.sub("ForCausalLM", files.architecture) if heads else files.architecture
    if architecture not in SERVED["embedded"]:
        known = ", ".join(SERVED["embedded"])
        raise ModelLoadError(f"{path}: architecture {architecture} is not among those this engine runs: {known}")
    try:
        return _shape(architecture, files)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise ModelLoadError(f"{path}: {type(error).__name__}: {error}") from None


def _shape(architecture: str, files: Checkpoint) -> Shape:
    config, path = files.config, files.config_path
    if config.get("hidden_act", "silu") != "silu":
        raise ModelLoadError(f"{path}: hidden_act {config['hidden_act']!r} is not supported, only 'silu'")
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    head_dim = int(config.get("head_dim") or hidden // heads)
    context = int(config["max_position_embeddings"])
    window = config.get("sliding_window")
    used = config.get("use_sliding_window", architecture == "MistralForCausalLM")
    if used and window and int(window) < context:
        context = int(window)
    frequencies, scale = _rotary(config, head_dim, path)
    return Shape(
        architecture, layers=int(config["num_hidden_layers"]), hidden=hidden, heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads), head_dim=head_dim, vocab=int(config["vocab_size"]),
        context=context, eps=float(config.get("rms_norm_eps", 1e-6)), frequencies=frequencies, rotary_scale=scale,
        tied=bool(config.get("tie_word_embeddings", False)),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"), scheme=files.scheme,
    )  # fmt: skip


def _rotary(config: Mapping[str, Any], head_dim: int, path: Path) -> tuple[tuple[float, ...], float]:
    rope = cast("dict[str, Any]", config.get("rope_parameters") or config.get("rope_scaling") or {})
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    base = tuple(theta ** (-2 * i / head_dim) for i in range(head_dim // 2))
    if kind == "default":
        return base, 1.0
    if kind == "longrope" and rope["short_factor"] == rope["long_factor"]:
        return tuple(f / d for f, d in zip(base, rope["long_factor"], strict=True)), float(rope["attention_factor"])
    factor = float(rope["factor"])
    if kind == "linear":
        return tuple(f / factor for f in base), 1.0
    if kind == "llama3":
        return tuple(_llama3(f, factor, rope) for f in base), 1.0
    if kind == "yarn":
        return _yarn(base, theta, head_dim, factor, rope, config)
    raise ModelLoadError(f"{path}: rope_type {kind!r} is not supported (default, linear, llama3, yarn)")


def _llama3(frequency: float, factor: float, rope: Mapping[str, Any]) -> float:
    """Long wavelengths are stretched by `factor`, short ones kept, those between blended."""
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = float(rope["original_max_position_embeddings"]) * frequency / (2 * math.pi)
    share = min(1.0, max(0.0, (turns - low) / (high - low)))
    return (1 - share) * frequency / factor + share * frequency


def _yarn(
    base: tuple[float, ...],
    theta: float,
    head_dim: int,
    factor: float,
    rope: Mapping[str, Any],
    config: Mapping[str, Any],
) -> tuple[tuple[float, ...], float]:
    """YaRN (Peng et al. 2023, arXiv:2309.00071): a ramp between kept and stretched dimensions, and a scale."""
    old = float(rope.get("original_max_position_embeddings") or config["max_position_embeddings"])

    def dimension(turns: float) -> float:
        return head_dim * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension(float(rope.get("beta_fast") or 32))), 0)
    high = min(math.ceil(dimension(float(rope.get("beta_slow") or 1))), head_dim - 1)
    made: list[float] = []
    for i, frequency in enumerate(base):
        stretched = min(1.0, max(0.0, (i - low) / max(high - low, 1e-3)))
        made.append(stretched * frequency / factor + (1 - stretched) * frequency)
    scale = rope.get("attention_factor") or 0.1 * math.log(factor) + 1.0
    return tuple(made), float(scale)
