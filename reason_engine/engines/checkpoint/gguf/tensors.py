"""The tensors of a GGUF file as a mapping that reads, and turns into numbers, the one that is asked for.

A matrix is read piece by piece, in threads, so that only megabytes stand in fp32 beside what is handed out. The file is
mapped; pages that were read are given back, or a whole file would count as this process's memory.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reason_engine.engines.checkpoint.gguf.header import TensorInfo
from reason_engine.engines.checkpoint.gguf.names import Part
from reason_engine.errors import ModelLoadError

if TYPE_CHECKING:
    from torch import Tensor

CHUNK, WORKERS = 1 << 20, 8
"""Numbers of a matrix that a thread turns at a time; most threads."""
PRECISIONS = {0: "float32", 30: "bfloat16", 39: "bfloat16", 40: "bfloat16"}
"""Of matrices, by ggml's number: F32, BF16, MXFP4 and NVFP4. All others are numbers times scales in fp16."""
RUN = 1 << 12
"""Numbers that gguf's functions are given as one row: they turn 16 rows at a time, which should stay in the cache."""


def check_kinds(parts: Mapping[str, Part]) -> None:
    """Raises ModelLoadError for a tensor stored in a way that the `gguf` package cannot turn into numbers."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    for number in sorted({part.info.kind for part in parts.values()}):
        kind = GGMLQuantizationType(number)
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError:
            one = next(part.info for part in parts.values() if part.info.kind == number)
            raise ModelLoadError(
                f"{one.file}: tensor {one.name} is stored as {kind.name}, which cannot be read here"
            ) from None


def kinds_of(parts: Mapping[str, Part]) -> list[str]:
    """How matrices are stored, by ggml's names, the most numbers first."""
    from gguf.constants import GGMLQuantizationType

    sizes = Counter[int]()
    for part in parts.values():
        if len(part.info.shape) > 1:
            sizes[part.info.kind] += prod(part.info.shape)
    return [GGMLQuantizationType(kind).name for kind, _ in sizes.most_common()]


class GgufTensors(Mapping[str, "Tensor"]):
    """By the names at Hugging Face, each read anew every time, in the precision of storage. Quantised ones come in
    fp16, the precision of their scales, or in bfloat16 where those are powers of two; vectors in fp32."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts
        self._workers = min(WORKERS, len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)
        self._maps: dict[Path, mmap.mmap] = {}

    def __getitem__(self, name: str) -> Tensor:
        import torch

        part = self._parts[name]
        shape = part.info.shape
        name = PRECISIONS.get(part.info.kind, "float16") if len(shape) > 1 else "float32"
        found = torch.empty(shape, dtype=getattr(torch, name))
        self._fill(part.info, found)
        return restore_order(found, part.heads) if part.heads else found

    def __contains__(self, name: object) -> bool:
        return name in self._parts  # a mapping's own way would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def _fill(self, info: TensorInfo, out: Tensor) -> None:
        """Turn the whole tensor into numbers, some rows at a time."""
        import torch
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        block, width = GGML_QUANT_SIZES[GGMLQuantizationType(info.kind)]
        data = self._data(info.file)
        flat, step = out.view(-1), max(block, CHUNK // block * block)
        inference = torch.is_inference_mode_enabled()  # a thread's own, and `out` belongs to this one's

        def turn(at: int) -> None:
            count = min(step, flat.numel() - at)
            raw = np.frombuffer(data, np.uint8, count // block * width, info.start + at // block * width)
            with torch.inference_mode(inference):
                flat[at : at + count] = torch.from_numpy(_numbers(raw, info.kind, block, width))

        starts = range(0, flat.numel(), step)
        if len(starts) == 1 or self._workers == 1:
            for at in starts:
                turn(at)
        else:
            with ThreadPoolExecutor(self._workers) as pool:
                list(pool.map(turn, starts))
        _give_back(data, info.start, info.size)

    def _data(self, path: Path) -> mmap.mmap:
        if path not in self._maps:
            try:
                with path.open("rb") as file:
                    self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except OSError as error:
                raise ModelLoadError(f"{path}: {error.strerror}") from None
        return self._maps[path]


def restore_order(rows: Tensor, heads: int) -> Tensor:
    """Each head's rows from pairs side by side to first halves, then second halves."""
    return rows.view(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def _numbers(raw: np.ndarray[Any, Any], kind: int, block: int, width: int) -> np.ndarray[Any, Any]:
    """In fp32, one after the other. Blocks stand alone, so that any number of them may be called a row."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    blocks = raw.size // width
    run = max(1, RUN // block)
    whole = blocks // run * run * width
    rows = (raw[:whole].reshape(-1, run * width), raw[whole:].reshape(1, -1))
    made = [dequantize(part, GGMLQuantizationType(kind)).reshape(-1) for part in rows if part.size]
    found = made[0] if len(made) == 1 else np.concatenate(made)
    return found if found.flags.writeable else found.copy()  # fp32 is a view of the file


def _give_back(data: mmap.mmap, start: int, size: int) -> None:
    page = mmap.ALLOCATIONGRANULARITY
    first, end = start // page * page, start + size
    if sys.platform == "linux":
        data.madvise(mmap.MADV_DONTNEED, first, end - first)
