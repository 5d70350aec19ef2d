"""Adapter folders before a tensor is read: which kind they hold, and what to do with a kind that is not served so.

A folder is in PEFT's form: `adapter_config.json` and `adapter_model.safetensors`, never a pickle. Three kinds are
served beside their base: LoRA; prompt tuning (learned tokens before each prompt); bottlenecks after sublayers, which
are this package's own (`peft: adapter`). Never loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reason_engine.engines.checkpoint.folder import ModelFolder, read_header, read_json
from reason_engine.errors import ModelLoadError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Kind = Literal["lora", "prompt", "bottleneck"]
KINDS: Mapping[str, Kind] = {"LORA": "lora", "PROMPT_TUNING": "prompt", "BOTTLENECK": "bottleneck"}
NAMES: Mapping[Kind, str] = {"lora": "LoRA", "prompt": "prompt tuning", "bottleneck": "bottlenecks after each sublayer"}
MERGE = "merge it into its base (`reason train` with peft.merge: true writes that checkpoint) and serve the result"


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """What an adapter's configuration says. `rank` and `scale` are LoRA's, `length` the number of learned tokens."""

    folder: Path
    kind: Kind
    rank: int = 0
    scale: float = 1.0
    length: int = 0

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS


def read_adapter(path: str | Path) -> AdapterFile:
    """Read and check both files' outsides. Raises ModelLoadError naming the file, and what to do instead."""
    folder = Path(path)
    where, weights = folder / CONFIG, folder / WEIGHTS
    if not where.is_file():
        raise ModelLoadError(f"{where}: not found; an adapter is a folder with {CONFIG} and {WEIGHTS}")
    config = read_json(where)
    found = str(config.get("peft_type"))
    if found not in KINDS:
        hint = f"; {MERGE}" if found in ("IA3", "ADALORA", "LOHA", "LOKR", "OFT", "BOFT") else ""
        raise ModelLoadError(f"{where}: peft_type {found!r} is not served as an adapter: {', '.join(KINDS)} are{hint}")
    kind = KINDS[found]
    for key, name in (("use_dora", "DoRA"), ("rank_pattern", "a rank by layer"), ("alpha_pattern", "a scale by layer")):
        if config.get(key):
            raise ModelLoadError(f"{where}: {name} ({key}) is not served as an adapter; {MERGE}")
    if not weights.is_file():
        raise ModelLoadError(f"{weights}: not found; only safetensors adapters are read")
    read_header(weights)
    try:
        return _read(folder, kind, config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelLoadError(f"{where}: {type(error).__name__}: {error}") from None


def only_lora(file: AdapterFile, engine: str) -> None:
    """Raises ModelLoadError for the kinds that only the embedded engine serves."""
    if file.kind != "lora":
        raise ModelLoadError(
            f"{file.folder}: {engine} serves LoRA adapters only; this is {NAMES[file.kind]}, which cannot be merged: "
            "serve it with --engine embedded, or train on the same rows with peft: lora"
        )


def check_fits(file: AdapterFile, base: Path) -> None:
    """Raises ModelLoadError where a LoRA's shapes are not those of this model's matrices; looks at headers only.

    Matrices that the base keeps in another form (quantised ones) are not compared.
    """
    sizes = {_place(name): shape for name, shape in ModelFolder(base).shapes.items()}
    modules = {name.rpartition(".")[0] for name in sizes}
    for name, entry in read_header(file.weights).items():
        place, found, side = _place(name).partition(".lora_")
        if not found or "layers." not in place:
            continue
        shape, matrix = entry["shape"], sizes.get(f"{place}.weight")
        if place not in modules:
            raise ModelLoadError(f"{file.weights}: cannot be applied to this model: {name}")
        if matrix is not None and shape[-1 if side[0] == "A" else 0] != matrix[-1 if side[0] == "A" else 0]:
            raise ModelLoadError(f"{file.weights}: {name} is {tuple(shape)}, which does not fit this model ({matrix})")


def _place(name: str) -> str:
    """A tensor's name from `layers.` on."""
    return name[max(0, name.find("layers.")) :]


def _read(folder: Path, kind: Kind, config: Mapping[str, Any]) -> AdapterFile:
    if kind == "prompt":
        length = int(config["num_virtual_tokens"])
        if length < 1:
            raise ValueError("num_virtual_tokens must be at least 1")
        return AdapterFile(folder, kind, length=length)
    if kind == "bottleneck":
        return AdapterFile(folder, kind)
    rank = int(config["r"])
    if rank < 1:
        raise ValueError("r must be at least 1")
    alpha = float(config.get("lora_alpha", rank))
    return AdapterFile(folder, kind, rank, alpha / (rank**0.5 if config.get("use_rslora") else rank))
