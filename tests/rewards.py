"""Tiny random reward models for tests: checkpoints with a head, and heads over another model's hidden states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.models import KINDS, TINY, write_tokenizer


def write_reward(folder: Path, kind: str = "qwen3", *, process: bool = False, labels: int = 1, seed: int = 1) -> Path:
    """A checkpoint for sequence or token classification, with its tokenizer."""
    import torch
    import transformers

    vocabulary = write_tokenizer(folder)
    torch.manual_seed(seed)
    pad = vocabulary - 3
    built = getattr(transformers, f"{KINDS[kind]}Config")(
        **TINY, vocab_size=vocabulary, num_labels=labels, eos_token_id=vocabulary - 1, pad_token_id=pad
    )
    name = "ForTokenClassification" if process else "ForSequenceClassification"
    model = getattr(transformers, KINDS[kind] + name)(built).to(torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder, safe_serialization=True)
    return folder


MERGES = (("\u010a", "\u010a"), (".", "\u010a\u010a"), ("\u010a\u010a", "\u010a\u010a"))
"""Blank lines are one token, and one with a full stop before them, as in the tokenizers of Qwen and Llama 3."""
STEP_MODELS = {
    "qwen-prm": ("qwen2", "Qwen2ForProcessRewardModel"),
    "skywork-prm": ("qwen2", "Qwen2ForPrmModel"),
    "trl": ("qwen2", "Qwen2ForTokenClassification"),
    "trl-newline": ("qwen3", "Qwen3ForTokenClassification"),
    "plain-steps": ("llama", "LlamaForTokenClassification"),
    "math-shepherd": ("mistral", "MistralForCausalLM"),
    "rlhflow": ("llama", "LlamaForCausalLM"),
    "versa-prm": ("llama", "LlamaForCausalLM"),
}
"""Kind of decoder and class of each format's published models."""


def write_step_model(folder: Path, format: str, *, seed: int = 3, **config: Any) -> Path:
    """A random model of a format's own architecture, as its makers' files are laid out."""
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    kind, architecture = STEP_MODELS[format]
    vocabulary = write_tokenizer(folder, merges=MERGES, specials=("<extra_0>",))
    torch.manual_seed(seed)
    labels = 1 if format == "plain-steps" else 2
    sizes = {**TINY, **config}
    built_of = getattr(transformers, f"{KINDS[kind]}Config")(
        **sizes, vocab_size=vocabulary, num_labels=labels, eos_token_id=vocabulary - 1, bos_token_id=None
    )
    built = architecture if hasattr(transformers, architecture) else f"{KINDS[kind]}ForCausalLM"
    model = getattr(transformers, built)(built_of).to(torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder, safe_serialization=True)
    hidden, file = TINY["hidden_size"], folder / "model.safetensors"
    extra: dict[str, torch.Tensor] = {}
    if format == "qwen-prm":
        shapes = {"score.0.weight": (hidden, hidden), "score.0.bias": (hidden,), "score.2.weight": (2, hidden)}
        extra = {name: torch.randn(size) for name, size in (shapes | {"score.2.bias": (2,)}).items()}
    if format == "skywork-prm":
        extra = {"v_head.summary.weight": torch.randn(1, hidden), "v_head.summary.bias": torch.randn(1)}
    if extra:
        save_file(load_file(file) | extra, file, {"format": "pt"})
        stored = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**stored, "architectures": [architecture]}))
    return folder


def write_head(folder: Path, hidden: int, *, kind: str = "outcome", wide: int = 0, seed: int = 2) -> Path:
    """A head of one linear layer, or of two with `wide` values between."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    sizes = [(wide, hidden), (1, wide)] if wide else [(1, hidden)]
    tensors: dict[str, torch.Tensor] = {}
    for number, (rows, columns) in enumerate(sizes):
        at = f"score.{2 * number}." if wide else "score."
        tensors |= {at + "weight": torch.randn(rows, columns), at + "bias": torch.randn(rows)}
    save_file(tensors, folder / "head.safetensors")
    (folder / "head.json").write_text(json.dumps({"kind": kind}))
    return folder
