"""Compression methods by name. Each is a frozen config and a class that makes a smaller checkpoint of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from reason_engine.compression.config import Compression
from reason_engine.progress import OnProgress, silent
from reason_engine.registry import Registry


@dataclass(frozen=True, slots=True)
class Served:
    """Who serves the result, and how: one short phrase each, which begins with `yes` or `no`."""

    embedded: str
    vllm_cpu: str
    vllm_gpu: str


class Method(Protocol):
    """A compressor with the class of its config: `Compressor` of the contracts, found by name.

    `check` runs before anything heavy is imported: lines for the user, or SetupError where the method cannot handle
    the model. `compress` writes config, weights and tokenizer into `out`, a folder that exists and is empty, and
    returns figures for the manifest; profile, manifest and report are added by `run`. `served` says who serves what
    this config makes.
    """

    config: ClassVar[type[Compression]]
    summary: ClassVar[str]

    def check(self, config: Any, model: Path) -> list[str]: ...
    def compress(self, config: Any, model: Path, out: Path, tell: OnProgress = silent) -> dict[str, Any]: ...
    def served(self, config: Any) -> Served: ...


compressors: Registry[Method] = Registry(
    "compression method",
    "reason_engine.compression",
    "reason_engine.compression.quantize",
    "reason_engine.compression.prune",
)

__all__ = ["Method", "Served", "compressors"]
