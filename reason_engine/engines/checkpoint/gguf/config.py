"""A GGUF file's metadata as the `config.json` that Hugging Face would have: the same names, the same meaning.

What the decoder would compute otherwise than the file means is refused by the name of the entry: experts, other rotary
scalings, scaled logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reason_engine.engines.checkpoint.gguf.header import Header
from reason_engine.engines.checkpoint.gguf.metadata import ARCHITECTURES, Metadata
from reason_engine.engines.checkpoint.gguf.rotary import rotary
from reason_engine.errors import ModelLoadError

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
    meta = Metadata(header)
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
        "rope_parameters": rotary(meta, size),
        "dtype": _dtype(header),
    }
    return config | ({"sliding_window": window} if window else {})


def _dtype(header: Header) -> str:
    """fp32 or fp16 where all matrices are; quantised ones are computed with in bfloat16."""
    kinds = {one.kind for one in header.tensors.values() if len(one.shape) > 1}
    return "float32" if kinds == {0} else "float16" if kinds == {1} else "bfloat16"
