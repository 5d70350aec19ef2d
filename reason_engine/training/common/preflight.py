"""What can be known before anything heavy is imported: are the rows readable, does it fit, can the result be served?

Each finding is one line for the user; what would fail later raises SetupError now.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from reason_engine.data.formats.readers import open_source
from reason_engine.engines.checkpoint.folder import SERVED, ModelFolder
from reason_engine.errors import ModelLoadError, SetupError
from reason_engine.training.adapters.peft import MERGED, check_installed
from reason_engine.training.common.source import FileSource, Source, source_of
from reason_engine.training.supervised.recipe import Supervised


def preflight(config: Supervised, model: Path | None, copies: int = 0) -> tuple[Source, list[str]]:
    """The rows, and what was found. `copies`: frozen models held beside the trained one. Raises SetupError."""
    check_installed(config.peft)
    found = list[str]()
    if model is not None:
        found += servable(config, model)
    fields = type(config).model_fields
    source = source_of(config, config.kinds)
    if isinstance(source, FileSource):
        path: Any = dict(config)["data"]
        found.append(f"{open_source(path, config.format).statement}; {len(source.rows):,} rows")
    elif "mixture" in fields:
        found.append(f"a mixture of {len(dict(config)['mixture'])} families, drawn with seed {config.seed}")
    found += [
        f"{name}: {open_source(path).statement}"
        for name, path in (("ewc", config.old), ("held out", config.held_out))
        if path is not None
    ]
    found.append(memory(config, model, copies))
    found.append(disk(config, model))
    return source, found


def servable(config: Supervised, model: Path) -> list[str]:
    """Whether vLLM can serve what comes out. Raises SetupError where it cannot, ModelLoadError on no checkpoint."""
    name = architecture(model, config.unservable)
    if config.chat:
        check_template(model)
    if config.peft is None or (config.peft.method in MERGED and config.peft.merge):
        return [
            f"serving: {name}, by vLLM and the embedded engine"
            if name in SERVED["vllm"]
            else f"serving: {name}"
        ]
    if config.peft.method in ("prompt", "adapter"):
        return [f"serving: peft {config.peft.method} cannot be merged, and vLLM has no place for it"]
    plain = config.peft.method == "lora"
    return ["serving: an adapter beside its base" if plain else "serving: only merged; set peft.merge: true"]


def architecture(model: Path, unservable: bool) -> str:
    """The checkpoint's, by name. Raises SetupError where vLLM lacks it and nobody said that it may, ModelLoadError."""
    if not (model / "config.json").is_file():
        raise ModelLoadError(f"{model}: no checkpoint folder (it has no config.json)")
    name = ModelFolder(model).architecture
    if name not in SERVED["vllm"] and not unservable:
        raise SetupError(
            f"{model}: vLLM serves no {name}, so what is trained could not be served; "
            "with unservable: true it is trained all the same"
        )
    return name


def check_template(model: Path) -> None:
    """Raises SetupError where the folder's tokenizer has no chat template."""
    if not _has_template(model):
        raise SetupError(
            f"{model}: the tokenizer has no chat template, by which rows are written and requests are served; "
            "take the instruct model, or put a chat_template.jinja into the folder"
        )


def memory(config: Supervised, model: Path | None, copies: int) -> str:
    """Weights, gradients, optimisers and one pass, against what is free. Raises SetupError where it is more."""
    total, hidden, layers, vocabulary = _size(config, model)
    trained = total if config.peft is None else total // 50
    state = 4 * (total * (1 + copies) + trained * (3 + 2 * (config.ewc > 0)))
    one_pass = config.micro_tokens * (layers * hidden * 34 + vocabulary * 4) * 4
    return fits(state + one_pass, total, "lower micro_tokens, or train fewer weights with peft or freeze")


def disk(config: Supervised, model: Path | None) -> str:
    """Room for the checkpoint and the model. Raises SetupError where there is too little."""
    total = _size(config, model)[0]
    return room(config.out, total * 2 * 2 + (total if config.peft is None else total // 50) * 12 * 2)


def fits(needed: float, parameters: int, advice: str) -> str:
    """What was found of the memory. Raises SetupError with the advice where there is too little."""
    have, where = _available()
    said = (
        f"memory: about {_gigabytes(needed)} of {_gigabytes(have)} free {where}; "
        f"{parameters / 1e6:,.2f}M parameters"
    )
    if needed > have:
        raise SetupError(f"{said}: too little; {advice}")
    return said


def room(out: Path, needed: float) -> str:
    """What was found of the disk. Raises SetupError where there is too little."""
    home = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not home.is_dir():
        raise SetupError(f"out: {home} is a file; a folder is made of {out}")
    have = shutil.disk_usage(home).free
    said = f"disk: about {_gigabytes(needed)} of {_gigabytes(have)} free under {home}"
    if needed > have:
        raise SetupError(f"{said}: too little for a checkpoint, its successor and the model")
    return said


def _has_template(model: Path) -> bool:
    if any(model.glob("chat_template*")):
        return True
    return bool(ModelFolder(model).read_json("tokenizer_config.json", missing={}).get("chat_template"))


def _size(config: Supervised, model: Path | None) -> tuple[int, int, int, int]:
    """(parameters, hidden size, layers, vocabulary)."""
    if model is not None:
        return size_of(model)
    new = dict(config)["architecture"]
    inner = new.heads * new.head_dim * 2 + new.kv_heads * new.head_dim * 2 + 3 * new.intermediate
    count = new.vocabulary * new.width + new.layers * new.width * inner
    return count, new.width, new.layers, new.vocabulary


def size_of(model: Path) -> tuple[int, int, int, int]:
    """(parameters, hidden size, layers, vocabulary) of a checkpoint folder, by its files' headers."""
    files = ModelFolder(model)
    said = files.config
    return (
        files.parameters,
        said.get("hidden_size", 0),
        said.get("num_hidden_layers", 0),
        said.get("vocab_size", 0),
    )


def _available() -> tuple[int, str]:
    import psutil

    return psutil.virtual_memory().available, "on this machine"


def _gigabytes(count: float) -> str:
    return f"{count / 2**30:,.2f} GiB"
