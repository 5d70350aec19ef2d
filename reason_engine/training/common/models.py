"""Building, loading and saving the model that is trained."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from reason_engine.data.formats.readers import read_rows
from reason_engine.data.formats.rows import answer_text, prompt_text
from reason_engine.data.mixture import Stream
from reason_engine.errors import ModelLoadError, SetupError
from reason_engine.profile import FILE
from reason_engine.training.common.distributed import is_sharded
from reason_engine.training.supervised.tokenizer import fit


def load_or_build(config: Any, spoken: Path | None = None) -> tuple[Any, Any]:
    """The causal language model in fp32, and its tokenizer: of a new one, that of the folder `spoken` or one fitted to
    the data. Raises ModelLoadError."""
    if config.model is not None:
        return load_model(config.model)
    from transformers import Qwen3Config, Qwen3ForCausalLM

    new = config.architecture
    if spoken is None:
        examples = _drawn(config) if config.mixture else _read(config)
        tokenizer = fit(islice(examples, new.tokenizer_examples), new.vocabulary)
    else:
        tokenizer = load_tokenizer(spoken)
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


def save_model(model: Any, tokenizer: Any, out: Path, dtype: str = "bfloat16") -> None:
    """Write a checkpoint folder, whole or not at all; other files in an existing folder stay.

    Raises SetupError where the disk takes no more: what stood in the folder stays as it was.
    """
    try:
        _write(model, tokenizer, out, dtype)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(_fresh(out), ignore_errors=True)
        raise SetupError(f"{out}: the model cannot be written; what stood there stays: {error}") from None


def write_profile(base: Path | None, out: Path) -> None:
    """Carry `reason.json` over, less the policy that was calibrated for the weights of before."""
    here = (out / "config.json").is_file() and not (out / FILE).exists()
    if base is None or not here or not (base / FILE).is_file():
        return
    profile = json.loads((base / FILE).read_text("utf-8"))
    profile.pop("auto", None)
    (out / FILE).write_text(json.dumps(profile, indent=2, ensure_ascii=False) + "\n", "utf-8")


def save_adapter(tensors: dict[str, Any], settings: dict[str, Any], out: Path) -> None:
    """Write an adapter folder in PEFT's form: `adapter_config.json` and `adapter_model.safetensors`."""
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, out / "adapter_model.new")
    os.replace(out / "adapter_model.new", out / "adapter_model.safetensors")
    (out / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _fresh(out: Path) -> Path:
    return out.with_name(f".{out.name}.new")


def _write(model: Any, tokenizer: Any, out: Path, dtype: str) -> None:
    import torch

    fresh = _fresh(out)
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    kind = getattr(torch, dtype)
    state = {name: tensor.to(kind) for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    model.save_pretrained(fresh, state_dict=state)
    settings = json.loads((fresh / "config.json").read_text("utf-8"))
    settings["dtype"] = dtype  # the library writes that of the training weights
    (fresh / "config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    tokenizer.save_pretrained(fresh)
    out.mkdir(parents=True, exist_ok=True)
    mode = (fresh / "config.json").stat().st_mode
    for file in sorted(fresh.iterdir()):
        file.chmod(mode)  # the weights are written for their owner alone
        os.replace(file, out / file.name)
    fresh.rmdir()


def load_model(path: Path) -> tuple[Any, Any]:
    """A checkpoint folder in fp32, and its tokenizer. Raises ModelLoadError."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(path)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    except Exception as error:  # the boundary to transformers, whose loaders raise of every kind
        raise ModelLoadError(f"{path}: {error}") from None
    _check_logits(model, path)
    return _quick_attention(model), tokenizer


def _check_logits(model: Any, path: Path) -> None:
    """Losses are taken from hidden states times the output matrix; some models do more to their logits."""
    import torch

    ids_BT = torch.arange(1, 5)[None]
    with torch.no_grad():
        whole = model(input_ids=ids_BT, use_cache=False).logits
        parts = model.get_output_embeddings()(model.base_model(ids_BT, use_cache=False).last_hidden_state)
    if not torch.allclose(whole, parts, atol=1e-3, rtol=1e-3):
        kind = model.config.model_type
        raise SetupError(
            f"{path}: a {kind} model scales or caps its logits, which is not known here how to train"
        )


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a checkpoint folder. Raises ModelLoadError."""
    from transformers import AutoTokenizer

    if not (path / "config.json").is_file():
        raise ModelLoadError(f"{path}: no checkpoint folder (it has no config.json)")
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # the boundary to transformers, whose loaders raise of every kind
        raise ModelLoadError(f"{path}: {error}") from None


def _quick_attention(model: Any) -> Any:
    import torch

    if torch.cuda.is_available():
        model.set_attn_implementation("sdpa")
        return model if is_sharded() else model.cuda()  # parts go there by themselves
    # On short sequences plain matrix products are twice as fast as the fused kernel's backward pass on a CPU.
    model.set_attn_implementation("eager")
    return model


def _drawn(config: Any) -> Iterator[str]:
    for example in Stream(config.mixture, config.seed + 1):
        yield f"user\n{example.question}\nassistant\n{example.answer}\nsystem"


def _read(config: Any) -> Iterator[str]:
    for row in read_rows(config.data, *config.kinds, format=config.format):
        yield f"user\n{prompt_text(row)}\nassistant\n{answer_text(row)}\nsystem"
