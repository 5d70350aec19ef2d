"""Tiny random reward models for tests: checkpoints with a head, and heads over another model's hidden states."""

from __future__ import annotations

import json
from pathlib import Path

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
