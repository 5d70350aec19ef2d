"""Adapters by name: PEFT's LoRA files read, checked and stacked for the decoder."""

from __future__ import annotations

from collections.abc import Hashable, Set
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reason_engine.engines._checkpoint import read_json, tensor_names
from reason_engine.engines.embedded.decoder import Decoder
from reason_engine.engines.embedded.lora import Patch, Place
from reason_engine.engines.embedded.weights import interleave
from reason_engine.errors import ModelLoadError, UnknownModel

FUSED = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class _Loaded:
    space: Hashable
    places: dict[Place, Pair]


class Adapters:
    """What is loaded, each in a slot of the stacks; slot 0 is the base model. `patch` is None while nothing is.

    An adapter that is unloaded or replaced keeps its slot while rows still use it.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.patch: Patch | None = None
        self._slots: dict[int, _Loaded] = {}
        self._names: dict[str, int] = {}
        self._versions = count(1)

    def find(self, name: str | None) -> tuple[int, Hashable]:
        """Its slot, and what keys its prefixes (another after every load). Raises UnknownModel."""
        if name is None:
            return 0, 0
        if name not in self._names:
            raise UnknownModel(f"no adapter named {name!r} is loaded", param="model", code="model_not_found")
        slot = self._names[name]
        return slot, self._slots[slot].space

    def load(self, name: str, path: Path, used: Set[int]) -> None:
        """Read a PEFT folder. Raises ModelLoadError naming the file. `used`: slots that rows depend on."""
        places = _Reader(self.decoder, path).places()
        slot = next(i for i in count(1) if i not in self._slots)
        self._slots[slot] = _Loaded((name, next(self._versions)), places)
        self._names[name] = slot
        self._stack(used)

    def unload(self, name: str, used: Set[int]) -> None:
        """Forget a name. Raises UnknownModel."""
        self.find(name)
        del self._names[name]
        self._stack(used)

    def _stack(self, used: Set[int]) -> None:
        kept = used | set(self._names.values())
        self._slots = {slot: one for slot, one in self._slots.items() if slot in kept}
        if not self._slots:
            self.patch = None
            return
        stacked: dict[Place, Pair] = {}
        for place in {place for one in self._slots.values() for place in one.places}:
            pairs = {slot: one.places[place] for slot, one in self._slots.items() if place in one.places}
            like_a, like_b = next(iter(pairs.values()))
            rank = max(a.shape[1] for a, _ in pairs.values())
            down = like_a.new_zeros(max(self._slots) + 1, like_a.shape[0], rank)
            up = like_b.new_zeros(max(self._slots) + 1, rank, like_b.shape[1])
            for slot, (a, b) in pairs.items():
                down[slot, :, : a.shape[1]] = a
                up[slot, : b.shape[0]] = b
            stacked[place] = (down, up)
        self.patch = Patch(stacked, self.decoder.device)


class _Reader:
    """One adapter folder: `adapter_config.json` and `adapter_model.safetensors`."""

    def __init__(self, decoder: Decoder, path: Path) -> None:
        self.decoder, self.path = decoder, path
        self.config = read_json(path / "adapter_config.json")
        self.file = path / "adapter_model.safetensors"
        self.tensors = self._read()
        self.scale = self._scale()

    def places(self) -> dict[Place, Pair]:
        """Per fused matrix: (in, rank) and (rank, out), scale included."""
        found: dict[Place, Pair] = {}
        for layer in range(self.decoder.shape.layers):
            for place, parts in FUSED.items():
                pairs = [self._pair(f"layers.{layer}.{part}") for part in parts]
                if any(pair is not None for pair in pairs):
                    found[layer, place] = self._fuse(layer, place, pairs)
        if self.tensors:
            raise ModelLoadError(f"{self.file}: cannot be applied: {sorted(self.tensors)[0]}")
        if not found:
            raise ModelLoadError(f"{self.file}: holds no LoRA weights")
        return found

    def _fuse(self, layer: int, place: str, pairs: list[Pair | None]) -> Pair:
        s, weights = self.decoder.shape, self.decoder.weights.layers[layer]
        matrix = {"qkv": weights.qkv, "out": weights.out, "gate_up": weights.gate_up, "down": weights.down}[
            place
        ]
        narrow = s.kv_heads * s.head_dim
        widths = {"qkv": [s.heads * s.head_dim, narrow, narrow]}.get(
            place, [matrix.shape[1] // len(pairs)] * len(pairs)
        )
        rank = sum(pair[0].shape[0] for pair in pairs if pair is not None)
        down, up = torch.zeros(matrix.shape[0], rank), torch.zeros(rank, matrix.shape[1])
        at = column = 0
        for i, (pair, width) in enumerate(zip(pairs, widths, strict=True)):
            if pair is not None:
                a, b = pair
                if a.shape[1] != matrix.shape[0] or b.shape != (width, a.shape[0]):
                    raise ModelLoadError(f"{self.file}: layer {layer} {place}: shapes do not fit this model")
                if place == "qkv" and i < 2:
                    b = interleave(b, s.head_dim)
                down[:, at : at + a.shape[0]] = a.t()
                up[at : at + a.shape[0], column : column + width] = b.t() * self.scale
                at += a.shape[0]
            column += width
        if place == "qkv" and weights.norm_in is None:
            down *= weights.norm_in_weight.float().cpu().unsqueeze(1)
        if place == "gate_up" and weights.norm_mlp is None:
            down *= weights.norm_mlp_weight.float().cpu().unsqueeze(1)
        return down.to(self.decoder.device, self.decoder.dtype), up.to(
            self.decoder.device, self.decoder.dtype
        )

    def _pair(self, at: str) -> Pair | None:
        a, b = (self.tensors.pop(f"{at}.lora_{side}.weight", None) for side in "AB")
        if a is None and b is None:
            return None
        if a is None or b is None:
            raise ModelLoadError(f"{self.file}: {at} has only one of lora_A and lora_B")
        return a, b

    def _read(self) -> dict[str, Tensor]:
        if not self.file.is_file():
            raise ModelLoadError(f"{self.file}: not found; only safetensors adapters are read")
        tensor_names(self.file)
        try:
            with safe_open(str(self.file), framework="pt") as file:
                names = list(file.keys())
                return {name[name.find("layers.") :]: file.get_tensor(name).float() for name in names}
        except (SafetensorError, OSError) as error:
            raise ModelLoadError(f"{self.file}: {str(error).splitlines()[0]}") from None

    def _scale(self) -> float:
        config: dict[str, Any] = dict(self.config)
        kind, where = config.get("peft_type"), self.path / "adapter_config.json"
        if (
            kind != "LORA"
            or config.get("use_dora")
            or config.get("rank_pattern")
            or config.get("alpha_pattern")
        ):
            raise ModelLoadError(f"{where}: only plain LoRA adapters are read (peft_type {kind!r})")
        try:
            rank = int(config["r"])
            return float(config.get("lora_alpha", rank)) / (rank**0.5 if config.get("use_rslora") else rank)
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise ModelLoadError(f"{where}: {type(error).__name__}: {error}") from None
