"""A GGUF file's metadata as the `config.json` that Hugging Face would have: the same names, the same meaning.

What the decoder would compute otherwise than the file means is refused by the name of the entry: experts, other rotary
scalings, scaled logits. Llama 3's stretched wavelengths come as a tensor of divisors, one a frequency, whose settings
are lost; they are told as `longrope` with one list for all lengths, which means the same.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

from reason_engine.engines.checkpoint.gguf.header import Header
from reason_engine.errors import ModelLoadError

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""By `general.architecture`. Mistral's models are llama there; one with a sliding window is told by it."""
FACTORS = "rope_freqs.weight"
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "expert_count": (0,), "attention.causal": (True,), "attention.scale": (0.0,), "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,), "attn_logit_softcapping": (0.0,), "final_logit_softcapping": (0.0,),
    "logit_scale": (0.0, 1.0), "residual_scale": (0.0, 1.0), "embedding_scale": (0.0, 1.0),
    "use_parallel_residual": (False,), "attention.temperature_scale": (0.0,), "rope.scaling.alpha": (0.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,), "rope.scaling.yarn_ext_factor": (1.0,),
    "rope.scaling.yarn_attn_factor": (1.0,),
}  # fmt: skip
"""Entries that change what is computed, with the values at which they do not."""


def config_of(header: Header) -> dict[str, Any]:
    """The mapping. Raises ModelLoadError naming the file and the entry that is missing, odd or not supported."""
    meta = _Metadata(header)
    heads, hidden = meta.whole("attention.head_count"), meta.whole("embedding_length")
    kv_heads = meta.whole("attention.head_count_kv", heads)
    size = meta.whole("attention.key_length", hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if meta.whole(key, size) != size:
            raise meta.refused(key, f"heads are {size} wide")
    for key, allowed in NEUTRAL.items():
        if meta.get(key, allowed[0]) not in allowed:
            raise meta.refused(key)
    window = meta.whole("attention.sliding_window", 0)
    if window and meta.kind != "llama":
        raise meta.refused("attention.sliding_window")
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ModelLoadError(f"{header.path}: has no tensor token_embd.weight, a matrix")
    config = {
        "architectures": ["MistralForCausalLM" if window else ARCHITECTURES[meta.kind]],
        "model_type": "mistral" if window else meta.kind,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": meta.whole("feed_forward_length"),
        "num_hidden_layers": meta.whole("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": size,
        "vocab_size": embedding.shape[0],
        "max_position_embeddings": meta.whole("context_length"),
        "rms_norm_eps": meta.number("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "rope_parameters": _rotary(meta, size),
        "dtype": _dtype(header),
    }
    return config | ({"sliding_window": window} if window else {})


class _Metadata:
    """The entries of one architecture, by their names without it."""

    def __init__(self, header: Header) -> None:
        self.header = header
        kind = header.metadata.get("general.type", "model")
        if kind != "model":
            raise ModelLoadError(f"{header.path}: general.type is {kind!r}: this is not a whole model")
        self.kind: Any = header.metadata.get("general.architecture")
        if self.kind not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ModelLoadError(
                f"{header.path}: general.architecture {self.kind!r} is not among those this engine runs from a GGUF "
                f"file: {known}; llama-server runs others, and --engine openai serves it"
            )

    def get(self, key: str, missing: Any = None) -> Any:
        return self.header.metadata.get(f"{self.kind}.{key}", missing)

    def whole(self, key: str, missing: int | None = None) -> int:
        """A whole number; a list of one value for every layer is that value."""
        found = self.get(key, missing)
        if isinstance(found, list) and found and len(set(map(str, found))) == 1:
            found = found[0]
        least = 1 if missing is None else 0
        if not isinstance(found, int) or isinstance(found, bool) or found < least:
            raise self.refused(key, "one whole number is expected")
        return found

    def number(self, key: str, missing: float | None = None) -> float:
        found = self.get(key, missing)
        if not isinstance(found, int | float) or not math.isfinite(found) or found < 0:
            raise self.refused(key, "a number is expected")
        return float(found)

    def refused(self, key: str, why: str = "this engine computes without it") -> ModelLoadError:
        name = f"{self.kind}.{key}"
        found = f"is {self.header.metadata[name]!r}" if name in self.header.metadata else "is missing"
        return ModelLoadError(f"{self.header.path}: {name} {found}, which is not supported: {why}")


def _rotary(meta: _Metadata, size: int) -> dict[str, Any]:
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


def _dtype(header: Header) -> str:
    """fp32 or fp16 where all matrices are; quantised ones are computed with in bfloat16."""
    kinds = {one.kind for one in header.tensors.values() if len(one.shape) > 1}
    return "float32" if kinds == {0} else "float16" if kinds == {1} else "bfloat16"
