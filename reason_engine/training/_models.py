"""Building, loading and saving the model that is trained."""

from __future__ import annotations

import json
import os
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

from reason_engine.data.mixture import Stream
from reason_engine.errors import ModelLoadError
from reason_engine.training.tokenizer import fit


def load_or_build(config: Any) -> tuple[Any, Any]:
    """The causal language model in fp32, and its tokenizer. Raises ModelLoadError."""
    if config.model is not None:
        return _load(config.model)
    from transformers import Qwen3Config, Qwen3ForCausalLM

    new = config.architecture
    examples = Stream(config.mixture, config.seed + 1) if config.mixture else _file(config.data)
    chosen = islice(examples, new.tokenizer_examples)
    tokenizer = fit((f"user\n{e.question}\nassistant\n{e.answer}\nsystem" for e in chosen), new.vocabulary)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=-(-len(tokenizer) // 64) * 64,
            hidden_size=new.width,
            num_hidden_layers=new.layers,
            intermediate_size=new.intermediate,
            num_attention_heads=new.heads,
            num_key_value_heads=new.kv_heads,
            head_dim=new.head_dim,
            max_position_embeddings=new.context,
            rope_parameters={"rope_type": "default", "rope_theta": new.rope_theta},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    tokenizer.model_max_length = new.context
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.data.zero_()
    return _quick_attention(model), tokenizer


def save_model(model: Any, tokenizer: Any, out: Path) -> None:
    """Write a bf16 checkpoint folder, whole or not at all; other files in an existing folder stay."""
    import torch

    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    state = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    model.save_pretrained(fresh, state_dict=state)
    settings = json.loads((fresh / "config.json").read_text("utf-8"))
    settings["dtype"] = "bfloat16"  # the library writes that of the training weights
    (fresh / "config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    tokenizer.save_pretrained(fresh)
    out.mkdir(parents=True, exist_ok=True)
    mode = (fresh / "config.json").stat().st_mode
    for file in sorted(fresh.iterdir()):
        file.chmod(mode)  # the weights are written for their owner alone
        os.replace(file, out / file.name)
    fresh.rmdir()


def _load(path: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (path / "config.json").is_file():
        raise ModelLoadError(f"{path}: no checkpoint folder (it has no config.json)")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    except Exception as error:  # the boundary to transformers, whose loaders raise of every kind
        raise ModelLoadError(f"{path}: {error}") from None
    return _quick_attention(model), tokenizer


def _quick_attention(model: Any) -> Any:
    # On short sequences plain matrix products are twice as fast as the fused kernel's backward pass on a CPU.
    model.set_attn_implementation("eager")
    return model


def _file(path: Path) -> Any:
    from reason_engine.data.formats import read

    return read(path)
