"""What is known of a run before anything heavy is imported: rows, memory, disk, and whether the result can be served.

Each finding is one line for the user; what would fail later raises SetupError now. `memory` tells what a run takes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from reason_engine.data.formats.readers import open_source
from reason_engine.data.mixture import Part
from reason_engine.engines.checkpoint.folder import SERVED, ModelFolder
from reason_engine.errors import ModelLoadError, SetupError
from reason_engine.training.common.encode import FileSource, Source, source_of
from reason_engine.training.common.recipe import Recipe, Supervised
from reason_engine.training.memory import (
    Need,
    available,
    model_size,
    new_size,
    online_need,
    supervised_need,
    trained_parameters,
)
from reason_engine.training.online.recipe import Online


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
    size = model_size(model) if model is not None else new_size(fields["architecture"])
    total, trained = size.parameters, trained_parameters(config, size)
    advice = "lower micro_tokens, set checkpointing: true, or train fewer weights with peft or freeze"
    found.append(_check_memory(config, supervised_need(config, size, copies), total, advice))
    found.append(_check_disk(config.out, total * 2 * 2 + trained * 12 * 2))
    return source, found


def preflight_online(config: Online) -> list[str]:
    """What was found of model, problems, memory and disk. Raises SetupError, ModelLoadError."""
    name = _check_servable(config.model, config.unservable)
    found = [f"serving: {name}, by vLLM and the embedded engine"]
    mixture = _mixture(config.mixture, config.seed)
    found.append(mixture if config.data is None else open_source(config.data, config.format).statement)
    size = model_size(config.model)
    judge = None if config.judge is None else model_size(config.judge)
    advice = (
        "lower micro_tokens, prompts, samples or max_tokens, set checkpointing: true, or train an adapter with peft"
    )
    found.append(_check_memory(config, online_need(config, size, judge), size.parameters, advice))
    trained = trained_parameters(config, size) * config.trained
    found.append(_check_disk(config.out, size.parameters * 2 * 2 + trained * 12 * 2))
    return found


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


def _check_memory(config: Recipe, need: Need, parameters: int, advice: str) -> str:
    """What was found of the memory. Raises SetupError with the advice where there is too little."""
    (have, where), millions = available(), f"{parameters / 1e6:,.2f}M parameters"
    tokens = need.tokens(have) if config.micro_tokens == "auto" else config.micro_tokens
    needed = need.total(tokens)
    found = (
        f"memory: about {_gigabytes(needed)} of {_gigabytes(have)} free {where}, {tokens:,} tokens a pass; {millions}"
    )
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


def _gigabytes(count: float) -> str:
    return f"{count / 2**30:,.2f} GiB"
