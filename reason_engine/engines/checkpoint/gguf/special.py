"""What a GGUF file's metadata says besides the tokenizer itself, in the form of the JSON files of a folder."""

from __future__ import annotations

from typing import Any

from reason_engine.engines.checkpoint.gguf.header import Header
from reason_engine.engines.checkpoint.gguf.tokenizer import CONTROL, token_id, tokens_of

NAMED = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
ENDS = ("eos", "eot", "eom")
END_TEXTS = frozenset({
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "</s>",
    "<EOT>", "<|EOT|>", "[EOT]", "[EOS]", "<｜end▁of▁sentence｜>",
})  # fmt: skip
"""Control tokens that end a text whatever the metadata names, as in llama.cpp: most files name one of several."""
TEMPLATE = "tokenizer.chat_template"


def tokenizer_config(header: Header) -> dict[str, Any]:
    """As `tokenizer_config.json` has it: special tokens by their texts, the chat template or templates."""
    tokens = tokens_of(header)
    ids = {name: token_id(header, key, len(tokens)) for name, key in NAMED.items()}
    made: dict[str, Any] = {name: tokens[number] for name, number in ids.items() if number is not None}
    stored = header.metadata.get(TEMPLATE)
    return made | ({"chat_template": stored} if isinstance(stored, str) and stored.strip() else {})


def generation_config(header: Header) -> dict[str, Any]:
    """As `generation_config.json` has it: all tokens that end a text."""
    tokens = tokens_of(header)
    types: Any = header.metadata.get("tokenizer.ggml.token_type") or []
    ends = {token_id(header, name, len(tokens)) for name in ENDS}
    marked = (number for number, kind in enumerate(types[: len(tokens)]) if kind == CONTROL)
    ends |= {number for number in marked if tokens[number] in END_TEXTS}
    return {"eos_token_id": sorted(number for number in ends if number is not None)}
