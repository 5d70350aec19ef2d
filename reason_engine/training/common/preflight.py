"""What is known of a run before anything heavy is imported: rows, memory, disk, and whether the result can be served.

Each finding is one line for the user; what would fail later raises SetupError now. The memory is a rule of thumb, in
fp32. Supervised methods: weights, frozen copies, gradients and two moments of what is trained, one forward pass. Online
methods: the same with the frozen start, the engine's own weights, the keys and values of a step's samples and the
judge's weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reason_engine.data.formats.readers import open_source
from reason_engine.data.mixture import Part
from reason_engine.engines.checkpoint.folder import SERVED, ModelFolder
from reason_engine.errors import ModelLoadError, SetupError
from reason_engine.training.common.encode import FileSource, Source, source_of
from reason_engine.training.common.models import Architecture
from reason_engine.training.common.recipe import Supervised
from reason_engine.training.online.recipe import Online


@dataclass(frozen=True, slots=True)
class ModelSize:
    """`cache`: numbers that a token leaves behind, the keys and values of all layers."""

    parameters: int
    hidden: int
    layers: int
    vocabulary: int
    cache: int = 0

    def forward_bytes(self, tokens: int) -> int:
        """Bytes of one forward pass of so many padded tokens, kept for the backward pass."""
        return 4 * tokens * (self.layers * self.hidden * 34 + self.vocabulary * 4)


def preflight(config: Supervised, model: Path | None, copies: int = 0) -> tuple[Source, list[str]]:
    """The rows, and what was found. `copies`: frozen models held beside the trained one. Raises SetupError."""
    if config.peft is not None:
        config.peft.check_installed()
    found = [] if model is None else [_serving(config, model)]
    source = source_of(config, config.kinds)
    fields = dict(config)
    if isinstance(source, FileSource):
        found.append(f"{open_source(fields['data'], config.format).statement}; {len(source.rows):,} rows")
    else:
        found.append(_mixture(fields["mixture"], config.seed))
    for name, path in (("ewc", config.old), ("held out", config.held_out)):
        if path is not None:
            found.append(f"{name}: {open_source(path).statement}")
    size = model_size(model) if model is not None else _new_size(fields["architecture"])
    total = size.parameters
    trained = total if config.peft is None else total // 50
    state = 4 * (total * (1 + copies) + trained * (3 + 2 * (config.ewc > 0)))
    advice = "lower micro_tokens, or train fewer weights with peft or freeze"
    found.append(_check_memory(state + size.forward_bytes(config.micro_tokens), total, advice))
    found.append(_check_disk(config.out, total * 2 * 2 + trained * 12 * 2))
    return source, found


def preflight_online(config: Online) -> list[str]:
    """What was found of model, problems, memory and disk. Raises SetupError, ModelLoadError."""
    name = _check_servable(config.model, config.unservable)
    found = [f"serving: {name}, by vLLM and the embedded engine"]
    mixture = _mixture(config.mixture, config.seed)
    found.append(mixture if config.data is None else open_source(config.data, config.format).statement)
    parameters = model_size(config.model).parameters
    advice = "lower micro_tokens, prompts, samples or max_tokens"
    found.append(_check_memory(online_memory(config), parameters, advice))
    found.append(_check_disk(config.out, parameters * (2 * 2 + 12 * 2 * config.trained)))
    return found


def online_memory(config: Online) -> float:
    """Bytes."""
    size = model_size(config.model)
    state = 4 * size.parameters * (4 * config.trained + 2)
    samples = 4 * config.prompts * config.samples * config.max_tokens * size.cache
    judge = 0 if config.judge is None else 4 * model_size(config.judge).parameters
    return state + size.forward_bytes(config.micro_tokens) + samples + judge


def model_size(model: Path) -> ModelSize:
    """Of a checkpoint folder, by its configuration and its files' headers. Raises ModelLoadError."""
    folder = ModelFolder(model)
    config = folder.config
    hidden, layers = config.get("hidden_size", 0), config.get("num_hidden_layers", 0)
    heads = config.get("num_attention_heads") or 1
    cache = 2 * layers * (config.get("num_key_value_heads") or heads) * (config.get("head_dim") or hidden // heads)
    return ModelSize(folder.parameters, hidden, layers, config.get("vocab_size", 0), cache)


def _new_size(new: Architecture) -> ModelSize:
    per_width = new.heads * new.head_dim * 2 + new.kv_heads * new.head_dim * 2 + 3 * new.intermediate
    count = new.vocabulary * new.width + new.layers * new.width * per_width
    return ModelSize(count, new.width, new.layers, new.vocabulary)


def _mixture(parts: Sequence[Part], seed: int) -> str:
    return f"a mixture of {len(parts)} families, drawn with seed {seed}"


def _serving(config: Supervised, model: Path) -> str:
    """Whether vLLM can serve what comes out. Raises SetupError where it cannot, ModelLoadError on no checkpoint."""
    name, peft = _check_servable(model, config.unservable), config.peft
    if peft is None or (peft.can_merge and peft.merge):
        served = name in SERVED["vllm"]
        return f"serving: {name}, by vLLM and the embedded engine" if served else f"serving: {name}"
    if peft.method in ("prompt", "adapter"):
        return f"serving: peft {peft.method} cannot be merged, and vLLM has no place for it"
    beside = peft.method == "lora"
    return "serving: an adapter beside its base" if beside else "serving: only merged; set peft.merge: true"


def _check_servable(model: Path, unservable: bool) -> str:
    """The checkpoint's architecture. Raises SetupError where vLLM lacks it and nobody said that it may, and where the
    tokenizer has no chat template; ModelLoadError."""
    folder = ModelFolder(model)
    if not folder.is_checkpoint:
        raise ModelLoadError(f"{model}: no checkpoint folder (it has no config.json)")
    name = folder.architecture
    if name not in SERVED["vllm"] and not unservable:
        raise SetupError(
            f"{model}: vLLM serves no {name}, so what is trained could not be served; "
            "with unservable: true it is trained all the same"
        )
    settings = folder.read_json("tokenizer_config.json", missing={})
    if not any(model.glob("chat_template*")) and not settings.get("chat_template"):
        raise SetupError(
            f"{model}: the tokenizer has no chat template, by which rows are written and requests are served; "
            "take the instruct model, or put a chat_template.jinja into the folder"
        )
    return name


def _check_memory(needed: float, parameters: int, advice: str) -> str:
    """What was found of the memory. Raises SetupError with the advice where there is too little."""
    (have, where), millions = _available(), f"{parameters / 1e6:,.2f}M parameters"
    found = f"memory: about {_gigabytes(needed)} of {_gigabytes(have)} free {where}; {millions}"
    if needed > have:
        raise SetupError(f"{found}: too little; {advice}")
    return found


def _check_disk(out: Path, needed: float) -> str:
    """What was found of the disk. Raises SetupError where there is too little."""
    home = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not home.is_dir():
        raise SetupError(f"out: {home} is a file; a folder is made of {out}")
    have = shutil.disk_usage(home).free
    found = f"disk: about {_gigabytes(needed)} of {_gigabytes(have)} free under {home}"
    if needed > have:
        raise SetupError(f"{found}: too little for a checkpoint, its successor and the model")
    return found


def _available() -> tuple[int, str]:
    import psutil

    return psutil.virtual_memory().available, "on this machine"


def _gigabytes(count: float) -> str:
    return f"{count / 2**30:,.2f} GiB"
