"""Checkpoints made on the fly for tests: tiny, random, seeded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{% endgeneration %}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
}
KINDS = {"qwen3": "Qwen3", "qwen2": "Qwen2", "llama": "Llama", "mistral": "Mistral"}


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
"""Rotary positions of two kinds, over a short context."""


def write_tokenizer(
    folder: Path, template: str = TEMPLATE, *, merges: Sequence[tuple[str, str]] = (), specials: Sequence[str] = ()
) -> int:
    """A byte-level tokenizer, without merges unless some are given: 256 bytes and three special tokens, the last of
    them `<|im_end|>`. Returns the vocabulary's size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(left + right for left, right in merges)]
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(words)}, merges=list(merges)))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not merges)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([*specials, *SPECIAL])
    made.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return made.get_vocab_size()


def write_model(
    folder: Path, kind: str = "qwen3", *, seed: int = 0, scale: float = 4.0, dtype: str = "float32", **config: Any
) -> Path:
    """A random causal language model of that kind (`qwen3`, `qwen2`, `llama`, `mistral`) with its tokenizer, in fp32.

    `scale` multiplies the embedding, so that the next-token distribution is far from flat and greedy choices are
    not decided by rounding.
    """
    import torch
    import transformers

    vocabulary = write_tokenizer(folder)
    torch.manual_seed(seed)
    settings = {**TINY, "vocab_size": vocabulary, "eos_token_id": vocabulary - 1, "bos_token_id": None, **config}
    settings.setdefault("tie_word_embeddings", False)
    built = getattr(transformers, f"{KINDS[kind]}Config")(**settings)
    model = getattr(transformers, f"{KINDS[kind]}ForCausalLM")(built).to(torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "embed" in name or "lm_head" in name:
                parameter.mul_(scale)
            else:
                parameter.mul_(3.0)
    model.generation_config.eos_token_id = vocabulary - 1
    model.to(getattr(torch, dtype)).save_pretrained(folder, safe_serialization=True)
    return folder


UNSERVABLE = [
    ("config.json", "architectures", ["MambaForCausalLM"], "vLLM serves no MambaForCausalLM"),
    ("tokenizer_config.json", "chat_template", None, "no chat template"),
]
"""What makes a checkpoint one that cannot be served: file, key, value, and what is said of it."""


def changed(model: Path, folder: Path, file: str, key: str, value: object) -> Path:
    """A copy of a checkpoint with one setting of one of its files changed."""
    shutil.copytree(model, folder)
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), key: value}))
    return folder
