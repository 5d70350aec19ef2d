"""The entries of a GGUF file's metadata that belong to its architecture, each checked when it is asked for."""

from __future__ import annotations

import math
from typing import Any

from reason_engine.engines.checkpoint.gguf.header import Header
from reason_engine.errors import ModelLoadError

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""By `general.architecture`. Mistral's models are llama there; one with a sliding window is told by it."""


class Metadata:
    """The entries of one architecture, by their names without it."""

    def __init__(self, header: Header) -> None:
        self.header = header
        kind = header.metadata.get("general.type", "model")
        if kind != "model":
            raise ModelLoadError(f"{header.path}: general.type is {kind!r}: this is not a whole model")
        self.kind: Any = header.metadata.get("general.architecture")
        if self.kind not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ModelLoadError(
                f"{header.path}: general.architecture {self.kind!r} is not among those this engine runs from a GGUF "
                f"file: {known}; llama-server runs others, and --engine openai serves it"
            )

    def get(self, key: str, missing: Any = None) -> Any:
        return self.header.metadata.get(f"{self.kind}.{key}", missing)

    def whole(self, key: str, missing: int | None = None) -> int:
        """A whole number; a list of one value for every layer is that value."""
        found = self.get(key, missing)
        if isinstance(found, list) and found and len(set(map(str, found))) == 1:
            found = found[0]
        least = 1 if missing is None else 0
        if not isinstance(found, int) or isinstance(found, bool) or found < least:
            raise self.refused(key, "one whole number is expected")
        return found

    def number(self, key: str, missing: float | None = None) -> float:
        found = self.get(key, missing)
        if not isinstance(found, int | float) or not math.isfinite(found) or found < 0:
            raise self.refused(key, "a number is expected")
        return float(found)

    def refused(self, key: str, why: str = "this engine computes without it") -> ModelLoadError:
        name = f"{self.kind}.{key}"
        found = f"is {self.header.metadata[name]!r}" if name in self.header.metadata else "is missing"
        return ModelLoadError(f"{self.header.path}: {name} {found}, which is not supported: {why}")
