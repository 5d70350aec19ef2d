"""Checkpoint folders as files: found, described and checked without torch, so that a bad path fails at once.

Only safetensors are read. The format: 8 bytes with the header's length (little endian), a JSON header naming each
tensor with its byte range, the bytes. A file shorter than its header says was cut off.

Which quantised checkpoints the embedded engine reads, told from `config.json` without torch.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast

from reason_engine.errors import ModelLoadError

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]


def resolve(name: str) -> Path:
    """The folder of a model: a path, or a hub name `owner/model`, downloaded where that is possible."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelLoadError(f"{path}: not a checkpoint folder")
    if path.is_absolute() or not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        raise ModelLoadError(f"{path}: no such model folder")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=WANTED))
    except Exception as error:  # network, cache and hub errors share no base class
        raise ModelLoadError(
            f"{name}: no such folder, and not to be had from the hub: {_line(error)}"
        ) from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, each checked to be whole. Raises ModelLoadError."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named: Any = read_json(index).get("weight_map")
        if not isinstance(named, dict):
            raise ModelLoadError(f"{index}: has no weight_map")
        files = [folder / str(f) for f in sorted({str(v) for v in cast("dict[str, Any]", named).values()})]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        for pattern in PICKLED:
            for path in sorted(folder.glob(pattern)):
                raise ModelLoadError(f"{path}: pickled weights are never loaded; convert them to safetensors")
        raise ModelLoadError(f"{folder}: has no *.safetensors file")
    for path in files:
        if path.parent.resolve() != folder.resolve():
            raise ModelLoadError(f"{index}: names a file outside the folder: {path.name}")
        tensor_names(path)
    return files


def tensor_names(path: Path) -> Mapping[str, Any]:
    """The header of a safetensors file: name -> dtype, shape, data_offsets. ModelLoadError if it is not whole."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > size - 8:
                raise ModelLoadError(f"{path}: corrupt or truncated safetensors file")
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise ModelLoadError(f"{path}: not found, though the index names it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path}: corrupt safetensors header: {_line(error)}") from None
    try:
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (AttributeError, KeyError, TypeError, IndexError):
        raise ModelLoadError(f"{path}: corrupt safetensors header") from None
    if end + length + 8 != size:
        raise ModelLoadError(f"{path}: truncated: {size} bytes where its header says {end + length + 8}")
    return header


def fingerprint(folder: Path) -> str:
    """A short name for these weights: hash of configuration, headers, sizes and a sample of each file's bytes."""
    digest = sha256()
    for path in [folder / "config.json", *weight_files(folder)]:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            for at in (0, size // 3, size // 2, max(0, size - 65536)):
                file.seek(at)
                digest.update(file.read(65536))
    return digest.hexdigest()[:16]


def read_json(path: Path, *, missing: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """A JSON object from a file; `missing` where there is none. Raises ModelLoadError."""
    if missing is not None and not path.is_file():
        return missing
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path}: not JSON: {_line(error)}") from None
    if not isinstance(value, dict):
        raise ModelLoadError(f"{path}: not a JSON object")
    return cast("dict[str, Any]", value)


def read_text(path: Path) -> str:
    """A text file's content. Raises ModelLoadError."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise ModelLoadError(f"{path}: not found") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{path}: {_line(error)}") from None


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


Scheme = Literal["gptq", "gptq_v2", "awq", "w8a8"]
"""4-bit weights in groups as AutoGPTQ packs them (the second without its offset of one in the zeros), as AutoAWQ packs
them, and compressed-tensors' 8-bit weights with activations quantised token by token."""


def scheme_of(config: Mapping[str, Any], path: Path) -> Scheme | None:
    """None where the weights are not quantised. Raises ModelLoadError for a scheme that this engine does not read."""
    found = config.get("quantization_config")
    if not isinstance(found, dict):
        return None
    said = cast("dict[str, Any]", found)
    method, bits = str(said.get("quant_method", "?")), said.get("bits", said.get("w_bit"))
    if method == "gptq" and bits == 4:
        return "gptq_v2" if said.get("checkpoint_format") == "gptq_v2" else "gptq"
    if (
        method == "awq"
        and bits == 4
        and str(said.get("version", said.get("format", "gemm"))).lower() == "gemm"
    ):
        return "awq"
    if method == "compressed-tensors" and _is_w8a8(said):
        return "w8a8"
    what = f"{method}, {bits} bits" if bits else method
    raise ModelLoadError(
        f"{path}: {what} is not read by this engine, which reads 4-bit gptq, 4-bit awq and W8A8 of compressed-tensors; "
        "use --engine vllm"
    )


def scheme_name(folder: Path) -> str | None:
    """What a checkpoint's configuration calls its quantisation; None where there is none."""
    found = read_json(folder / "config.json").get("quantization_config")
    return str(cast("dict[str, Any]", found).get("quant_method")) if isinstance(found, dict) else None


def _is_w8a8(said: Mapping[str, Any]) -> bool:
    groups = said.get("config_groups")
    if said.get("format") != "int-quantized" or not isinstance(groups, dict) or len(groups) != 1:
        return False
    (group,) = cast("dict[str, Any]", groups).values()
    try:
        weights, inputs = group["weights"], group["input_activations"]
        return (
            (weights["num_bits"], weights["type"], weights["symmetric"], weights["strategy"])
            == (8, "int", True, "channel")
            and (inputs["num_bits"], inputs["type"], inputs["symmetric"]) == (8, "int", True)
            and (inputs["strategy"], inputs["dynamic"]) == ("token", True)
        )
    except (KeyError, TypeError):
        return False
