"""Adapter folders of the three kinds for the tiny model, random and seeded, and what each does in plain torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

HIDDEN, LAYERS = 64, 2
Forward = Callable[[list[int]], Any]
"""Token ids to logits of every place, (T, V)."""


def write_prompt(folder: Path, seed: int, length: int = 5, **config: Any) -> Path:
    """Learned tokens, as PEFT's prompt tuning writes them. They are as large as the tiny model's embeddings."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    tensors = {"prompt_embeddings": torch.randn(length, HIDDEN, generator=generator) * 0.5}
    return write(folder, tensors, {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": length, **config})


def write_bottlenecks(folder: Path, seed: int, width: int = 6, **config: Any) -> Path:
    """Bottlenecks after each sublayer, as `peft: adapter` writes them."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    sizes = {
        "down.weight": (width, HIDDEN), "down.bias": (width,), "up.weight": (HIDDEN, width), "up.bias": (HIDDEN,),
    }  # fmt: skip
    tensors = {
        f"layers.{layer}.{part}.{name}": torch.randn(size, generator=generator) * 0.5
        for layer in range(LAYERS)
        for part in ("attention", "mlp")
        for name, size in sizes.items()
    }
    return write(folder, tensors, {"peft_type": "BOTTLENECK", "width": width, **config})


def write(folder: Path, tensors: dict[str, Any], config: dict[str, Any]) -> Path:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / "adapter_model.safetensors"))
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def plain_forward(model: Path, adapter: Path | None) -> Forward:
    """The model with a prompt or bottlenecks, by transformers and the training code, apart from the engine."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from reason_engine.training.common.adapters import load_bottlenecks

    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    kind = json.loads((adapter / "adapter_config.json").read_text())["peft_type"] if adapter else ""
    learned = torch.zeros(0, HIDDEN)
    if adapter and kind == "BOTTLENECK":
        load_bottlenecks(loaded, adapter, 6)
    elif adapter:
        learned = load_file(str(adapter / "adapter_model.safetensors"))["prompt_embeddings"]

    def forward(ids: list[int]) -> Any:
        embedded = torch.cat((learned, loaded.get_input_embeddings()(torch.tensor(ids))))
        with torch.no_grad():
            return loaded(inputs_embeds=embedded[None], use_cache=False).logits[0, len(learned) :]

    return forward


def greedy(forward: Forward, ids: list[int], count: int) -> list[int]:
    """The next tokens."""
    made: list[int] = []
    for _ in range(count):
        made.append(int(forward([*ids, *made])[-1].argmax()))
    return made
