"""Adapters by name: which are loaded, in which slot, and since when.

An adapter's tensors, checked against the model and laid out as the decoder multiplies: see `patch`.
"""

from __future__ import annotations

from collections.abc import Hashable, Set
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reason_engine.engines.checkpoint.adapter_files import AdapterFile, read_adapter
from reason_engine.engines.embedded.model.adapter_layers import Bottleneck, Pair, Parts, Place
from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.model.weights import interleave
from reason_engine.errors import ModelLoadError, UnknownModel

if TYPE_CHECKING:
    from reason_engine.engines.embedded.model.adapter_layers import Parts, Patch
    from reason_engine.engines.embedded.model.decoder import Decoder


@dataclass(frozen=True, slots=True)
class _Loaded:
    space: Hashable
    parts: Parts


class Adapters:
    """What is loaded, each in a slot; slot 0 is the base model. `patch` is None while nothing is.

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

    def learned(self, slot: int) -> tuple[int, ...]:
        """The tokens that stand before every prompt of this slot."""
        table = self._slots[slot].parts.learned if slot else None
        first = self.decoder.shape.vocab
        return () if table is None else tuple(range(first, first + table.shape[0]))

    def load(self, name: str, path: Path, used: Set[int]) -> None:
        """Read a folder. Raises ModelLoadError naming the file. `used`: slots that rows depend on."""
        from reason_engine.engines.embedded.model.adapters import read_parts

        parts = read_parts(self.decoder, path)
        slot = next(i for i in count(1) if i not in self._slots)
        self._slots[slot] = _Loaded((name, next(self._versions)), parts)
        self._names[name] = slot
        self._settle(used)

    def unload(self, name: str, used: Set[int]) -> None:
        """Forget a name. Raises UnknownModel."""
        self.find(name)
        del self._names[name]
        self._settle(used)

    def _settle(self, used: Set[int]) -> None:
        """Let go of slots that nobody needs."""
        from reason_engine.engines.embedded.model.adapter_layers import Patch

        kept = used | set(self._names.values())
        self._slots = {slot: one for slot, one in self._slots.items() if slot in kept}
        parts = {slot: one.parts for slot, one in self._slots.items()}
        self.patch = Patch(parts, self.decoder.device) if parts else None


FUSED = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
SUBLAYERS = {"attention": "out", "mlp": "down"}
"""Where bottlenecks stand, by the matrix that the sublayer ends in."""


def read_parts(decoder: Decoder, path: Path) -> Parts:
    """Read a folder. Raises ModelLoadError naming the file and what does not fit."""
    file = read_adapter(path)
    reader = _Reader(decoder, file)
    parts = {"lora": reader.lora, "prompt": reader.prompt, "bottleneck": reader.bottlenecks}[file.kind]()
    if reader.tensors:
        raise ModelLoadError(f"{file.weights}: cannot be applied to this model: {sorted(reader.tensors)[0]}")
    return parts


class _Reader:
    """Takes tensors out of one file; what is left at the end could not be applied."""

    def __init__(self, decoder: Decoder, file: AdapterFile) -> None:
        self.decoder, self.file = decoder, file
        self.tensors = _read(file.weights)

    def lora(self) -> Parts:
        found: dict[Place, Pair] = {}
        for layer in range(self.decoder.shape.layers):
            for place, parts in FUSED.items():
                pairs = [self._pair(f"layers.{layer}.{part}") for part in parts]
                if any(pair is not None for pair in pairs):
                    found[layer, place] = self._fuse(layer, place, pairs)
        if not found and not self.tensors:
            raise ModelLoadError(f"{self.file.weights}: holds no LoRA weights")
        return Parts(pairs=found)

    def prompt(self) -> Parts:
        table = self._take("prompt_embeddings", (self.file.length, self.decoder.shape.hidden))
        return Parts(learned=self._placed(table))

    def bottlenecks(self) -> Parts:
        hidden = self.decoder.shape.hidden
        found: dict[Place, Bottleneck] = {}
        for layer in range(self.decoder.shape.layers):
            for part, place in SUBLAYERS.items():
                at = f"layers.{layer}.{part}"
                down = self._take(f"{at}.down.weight", (-1, hidden))
                width = down.shape[0]
                found[layer, place] = Bottleneck(
                    self._placed(down.t().contiguous()),
                    self._placed(self._take(f"{at}.down.bias", (width,))),
                    self._placed(self._take(f"{at}.up.weight", (hidden, width)).t().contiguous()),
                    self._placed(self._take(f"{at}.up.bias", (hidden,))),
                )
        return Parts(bottlenecks=found)

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
                    raise ModelLoadError(
                        f"{self.file.weights}: layer {layer} {place}: shapes do not fit this model"
                    )
                if place == "qkv" and i < 2:
                    b = interleave(b, s.head_dim)
                down[:, at : at + a.shape[0]] = a.t()
                up[at : at + a.shape[0], column : column + width] = b.t() * self.file.scale
                at += a.shape[0]
            column += width
        if place == "qkv" and weights.norm_in is None:
            down *= weights.norm_in_weight.float().cpu().unsqueeze(1)
        if place == "gate_up" and weights.norm_mlp is None:
            down *= weights.norm_mlp_weight.float().cpu().unsqueeze(1)
        return self._placed(down), self._placed(up)

    def _pair(self, at: str) -> Pair | None:
        a, b = (self.tensors.pop(f"{at}.lora_{side}.weight", None) for side in "AB")
        if a is None and b is None:
            return None
        if a is None or b is None:
            raise ModelLoadError(f"{self.file.weights}: {at} has only one of lora_A and lora_B")
        if a.dim() != 2 or b.dim() != 2:
            raise ModelLoadError(f"{self.file.weights}: {at}: shapes do not fit this model")
        return a, b

    def _take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor that must be there; -1 stands for any size."""
        found = self.tensors.pop(name, None)
        if found is None:
            raise ModelLoadError(f"{self.file.weights}: has no tensor {name}")
        if found.dim() != len(shape) or any(
            w not in (-1, g) for g, w in zip(found.shape, shape, strict=True)
        ):
            raise ModelLoadError(
                f"{self.file.weights}: {name} is {tuple(found.shape)}, which does not fit this model ({shape})"
            )
        return found

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.decoder.device, self.decoder.dtype)


def _read(path: Path) -> dict[str, Tensor]:
    """All tensors by their names from `layers.` on."""
    try:
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            return {name[max(0, name.find("layers.")) :]: file.get_tensor(name).float() for name in names}
    except (SafetensorError, OSError) as error:
        raise ModelLoadError(f"{path}: {str(error).splitlines()[0]}") from None
