"""GGUF files made of the tiny checkpoints of `tests.models`, named and laid out as llama.cpp's files are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def renamed(name: str) -> str:
    """A tensor's name in GGUF."""
    module, _, suffix = name.rpartition(".")
    if module.startswith("model.layers."):
        layer, _, part = module.removeprefix("model.layers.").partition(".")
        return f"blk.{layer}.{NAMES[part]}.{suffix}"
    return f"{NAMES[module]}.{suffix}"


def in_pairs(rows: Any, heads: int) -> Any:
    """Rows of q or k as llama's files have them: row i of a head's first half before row i of its second half."""
    import numpy as np

    size = rows.shape[0] // heads
    order = [head * size + half * (size // 2) + place
             for head in range(heads) for place in range(size // 2) for half in (0, 1)]  # fmt: skip
    return np.ascontiguousarray(rows[order])


def stored(folder: Path) -> dict[str, Any]:
    """The tensors of a checkpoint folder, in fp32, by their names in a GGUF file and in its order of rows."""
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    found: dict[str, Any] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
        if config["model_type"] in ("llama", "mistral") and any(f".{side}_proj." in name for side in "qk"):
            tensor = in_pairs(tensor, heads["q" if ".q_proj." in name else "k"])
        found[renamed(name)] = tensor
    return found


def metadata(folder: Path) -> dict[str, Any]:
    """What a converter would write of a checkpoint folder with a tokenizer of `tests.models`."""
    from tokenizers import Tokenizer

    config = json.loads((folder / "config.json").read_text())
    kind = {"mistral": "llama"}.get(config["model_type"], config["model_type"])
    rope = config["rope_parameters"]
    own: dict[str, Any] = {
        "block_count": config["num_hidden_layers"], "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"], "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"], "rope.freq_base": rope["rope_theta"],
        "attention.key_length": config["head_dim"], "attention.value_length": config["head_dim"],
    }  # fmt: skip
    if rope["rope_type"] in ("linear", "yarn"):
        own |= {"rope.scaling.type": rope["rope_type"], "rope.scaling.factor": rope["factor"]}
    if rope["rope_type"] == "yarn":
        own["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    control = {number for number, token in made.get_added_tokens_decoder().items() if token.special}
    merges = json.loads(made.to_str())["model"]["merges"]
    count = made.get_vocab_size()
    return {
        "general.architecture": kind, **{f"{kind}.{key}": value for key, value in own.items()},
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [made.id_to_token(number) for number in range(count)],
        "tokenizer.ggml.token_type": [3 if number in control else 1 for number in range(count)],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
        "tokenizer.ggml.eos_token_id": count - 1, "tokenizer.ggml.padding_token_id": count - 3,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": json.loads((folder / "tokenizer_config.json").read_text())["chat_template"],
    }  # fmt: skip


def write_file(
    path: Path, entries: Mapping[str, Any], tensors: Mapping[str, Any], kinds: Mapping[str, str] | str = "F32"
) -> Path:
    """A file of these entries and fp32 tensors. Matrices are stored as `kinds` says, for all or by name; bytes that
    are blocks already (uint8) as they are."""
    import gguf
    import numpy as np
    from gguf.quants import quantize

    writer = gguf.GGUFWriter(path, str(entries["general.architecture"]))
    for key, value in entries.items():
        if key != "general.architecture":
            _add(writer, key, value)
    for name, tensor in tensors.items():
        named = kinds if isinstance(kinds, str) else kinds.get(name, "F32")
        kind = gguf.GGMLQuantizationType[named if tensor.ndim > 1 else "F32"]
        block = tensor if tensor.dtype == np.uint8 else quantize(tensor, kind)
        writer.add_tensor(name, np.ascontiguousarray(block), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_gguf(
    folder: Path, path: Path, kinds: Mapping[str, str] | str = "F32", *, without: Sequence[str] = (), **changed: Any
) -> Path:
    """A checkpoint folder as one file. `changed`: entries by their names with `__` for a dot, None leaves one out."""
    entries = metadata(folder) | {key.replace("__", "."): value for key, value in changed.items()}
    entries = {key: value for key, value in entries.items() if value is not None}
    tensors = {name: tensor for name, tensor in stored(folder).items() if name not in without}
    return write_file(path, entries, tensors, kinds)


def _add(writer: Any, key: str, value: Any) -> None:
    kinds = {bool: "bool", int: "uint32", float: "float32", str: "string"}
    if isinstance(value, list):
        writer.add_array(key, value)
    else:
        getattr(writer, f"add_{kinds[type(value)]}")(key, value)
