"""The tensors of a GGUF file by the names that Hugging Face gives them, checked to be all that the decoder needs.

llama.cpp rotates neighbouring pairs in llama models, so that there the rows of q and k are stored in another order than
in Hugging Face's files; `Part.heads` says of how many heads the order is to be undone. Qwen's are stored alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reason_engine.engines.checkpoint.gguf.header import Header, TensorInfo
from reason_engine.engines.checkpoint.gguf.rotary import FACTORS
from reason_engine.errors import ModelLoadError

TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
ATTENTION = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
LAYER = {
    **ATTENTION, "attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm", "ffn_norm":
    "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor that the decoder needs, and where it is. `heads` is 0 where its rows stand in their order."""

    info: TensorInfo
    heads: int = 0


def named(header: Header, config: Mapping[str, Any]) -> dict[str, Part]:
    """Every tensor by its name at Hugging Face. Raises ModelLoadError for one that is missing, of another shape or
    unknown: what a model has besides is something that would be left out silently."""
    wanted = _wanted(config, header)
    made: dict[str, Part] = {}
    for name, (shape, whole, heads) in wanted.items():
        found = header.tensors.get(name)
        if found is None:
            raise ModelLoadError(f"{header.path}: has no tensor {name}")
        if found.shape != shape:
            raise ModelLoadError(f"{header.path}: tensor {name} is {found.shape} where its metadata asks for {shape}")
        made[whole] = Part(found, heads)
    if odd := sorted(header.tensors.keys() - wanted.keys() - {FACTORS}):
        raise ModelLoadError(f"{header.path}: tensor {odd[0]} belongs to no part of a model that this engine runs")
    return made


def _wanted(config: Mapping[str, Any], header: Header) -> dict[str, tuple[tuple[int, ...], str, int]]:
    """By the file's name: shape, name at Hugging Face, heads whose rows are in another order."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv_heads, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    turned = config["model_type"] in ("llama", "mistral")
    rows = {"attn_q": heads * size, "attn_k": kv_heads * size, "attn_v": kv_heads * size}
    orders = {"attn_q": heads, "attn_k": kv_heads, "attn_v": 0} if turned else dict.fromkeys(rows, 0)
    shapes: dict[str, tuple[int, ...]] = {
        **{name: (count, hidden) for name, count in rows.items()}, "attn_output": (hidden, heads * size),
        "attn_norm": (hidden,), "ffn_norm": (hidden,), "ffn_gate": (inner, hidden), "ffn_up": (inner, hidden),
        "ffn_down": (hidden, inner),
    }  # fmt: skip
    if config["model_type"] == "qwen3":
        shapes |= {"attn_q_norm": (size,), "attn_k_norm": (size,)}
    top: dict[str, tuple[int, ...]] = {"token_embd": (vocab, hidden), "output_norm": (hidden,)}
    if not config["tie_word_embeddings"]:
        top["output"] = (vocab, hidden)
    made = {f"{name}.weight": (shape, f"{TOP[name]}.weight", 0) for name, shape in top.items()}
    for layer in range(config["num_hidden_layers"]):
        at, whole = f"blk.{layer}.", f"model.layers.{layer}."
        made |= {
            f"{at}{name}.weight": (shape, f"{whole}{LAYER[name]}.weight", orders.get(name, 0))
            for name, shape in shapes.items()
        }
        biased = any(f"{at}{name}.bias" in header.tensors for name in ATTENTION)
        if biased or config["model_type"] == "qwen2":
            made |= {
                f"{at}{name}.bias": ((count,), f"{whole}{LAYER[name]}.bias", orders[name])
                for name, count in rows.items()
            }
    return made
