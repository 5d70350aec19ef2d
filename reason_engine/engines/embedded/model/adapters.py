"""Adapters: which are loaded and in which slot, how their files are read, and what they add to a pass.

A batch may mix samples of several adapters with those of the base model, since each token chooses its slot:

    lora        y += scale * (x A) B                     at a matrix        Hu et al. 2021, arXiv:2106.09685
    learned     rows of a table of their own             as embeddings      Lester et al. 2021, arXiv:2104.08691
    bottleneck  h <- h + U gelu(D h + d) + u             after a sublayer   Houlsby et al. 2019, arXiv:1902.00751

Slot 0 is the base model. LoRA matrices of one place are stacked, (slots, in, rank) and (slots, rank, out), zeros where
a slot has none; q, k and v share one stacked product, as do gate and up: their ranks stand side by side. A learned
embedding i is the token `vocabulary + i` of its slot.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Set
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reason_engine.engines.checkpoint.adapter_files import AdapterFile, read_adapter
from reason_engine.engines.embedded.model.int8 import Int8Rows
from reason_engine.engines.embedded.model.shape import Shape
from reason_engine.engines.embedded.model.weights import Weights, interleave
from reason_engine.errors import ModelLoadError, UnknownModel

Place = tuple[int, str]
"""(layer, one of qkv, out, gate_up, down) of a matrix, or (layer, one of out, down) of a sublayer that ends there."""
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """(hidden, width), (width), (width, hidden), (hidden)."""

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor

    def __call__(self, h_NH: Tensor) -> Tensor:
        return h_NH + torch.addmm(self.up_bias, F.gelu(torch.addmm(self.down_bias, h_NH, self.down)), self.up)


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """One adapter. Pairs are (in, rank) and (rank, out), scale included; `learned` is (tokens, hidden)."""

    pairs: Mapping[Place, Pair] = field(default_factory=dict[Place, Pair])
    bottlenecks: Mapping[Place, Bottleneck] = field(default_factory=dict[Place, Bottleneck])
    learned: Tensor | None = None


class AdapterLayers:
    """All loaded adapters by slot. `select` names each token's before a pass."""

    def __init__(self, slots: Mapping[int, AdapterWeights], device: torch.device) -> None:
        self._device = device
        self._stacked = {
            place: _stack(slots, place) for place in {place for one in slots.values() for place in one.pairs}
        }
        self._bottlenecks = {slot: one.bottlenecks for slot, one in slots.items() if one.bottlenecks}
        tables = {slot: one.learned for slot, one in slots.items() if one.learned is not None}
        self._table = torch.cat(list(tables.values())) if tables else None
        starts, at = [0] * (max(slots) + 1), 0
        for slot, table in tables.items():
            starts[slot], at = at, at + table.shape[0]
        self._starts = torch.tensor(starts, device=device)
        self._chosen: list[int] = []
        self._index = torch.empty(0, dtype=torch.long, device=device)
        self._rows: dict[int, Tensor] = {}
        self.wraps = False
        """Whether a token of the next pass has bottlenecks."""

    def select(self, adapters_N: list[int]) -> None:
        """Token i of the next pass uses `adapters_N[i]`."""
        if adapters_N == self._chosen:
            return
        self._chosen = list(adapters_N)
        self._index = torch.tensor(adapters_N, device=self._device)
        self._rows = {
            slot: torch.tensor([i for i, one in enumerate(adapters_N) if one == slot], device=self._device)
            for slot in sorted(set(adapters_N) - {0})
        }
        self.wraps = any(slot in self._bottlenecks for slot in self._rows)

    def embed(self, embedding_VH: Tensor | Int8Rows, tokens_N: Tensor) -> Tensor:
        """The tokens' embeddings, (N, H), learned ones among them."""
        if self._table is None or not self._rows:
            return embedding_VH.index_select(0, tokens_N)
        vocabulary = embedding_VH.shape[0]
        own_N = tokens_N >= vocabulary
        x_NH = embedding_VH.index_select(0, tokens_N.masked_fill(own_N, 0))
        places_N = (self._starts[self._index] + tokens_N - vocabulary).masked_fill(~own_N, 0)
        return torch.where(own_N.unsqueeze(1), self._table.index_select(0, places_N), x_NH.to(self._table.dtype))

    def add(self, layer: int, place: str, x_NI: Tensor, y_NO: Tensor) -> None:
        """Add the low-rank part of this matrix to `y`, in place."""
        found = self._stacked.get((layer, place))
        if found is None:
            return
        down, up = found
        for slot, rows in self._rows.items():
            low = x_NI.index_select(0, rows).to(down.dtype) @ down[slot]
            y_NO.index_add_(0, rows, (low @ up[slot]).to(y_NO.dtype))

    def wrap(self, layer: int, place: str, h_NH: Tensor) -> None:
        """Put the output of the sublayer that ends in this matrix through the bottlenecks, in place."""
        for slot, rows in self._rows.items():
            if (found := self._bottlenecks.get(slot, {}).get((layer, place))) is not None:
                h_NH.index_copy_(0, rows, found(h_NH.index_select(0, rows)))


def _stack(slots: Mapping[int, AdapterWeights], place: Place) -> Pair:
    pairs = {slot: one.pairs[place] for slot, one in slots.items() if place in one.pairs}
    like_a, like_b = next(iter(pairs.values()))
    rank = max(a.shape[1] for a, _ in pairs.values())
    down = like_a.new_zeros(max(slots) + 1, like_a.shape[0], rank)
    up = like_b.new_zeros(max(slots) + 1, rank, like_b.shape[1])
    for slot, (a, b) in pairs.items():
        down[slot, :, : a.shape[1]] = a
        up[slot, : b.shape[0]] = b
    return down, up


@dataclass(frozen=True, slots=True)
class _Loaded:
    space: Hashable
    weights: AdapterWeights


class AdapterSlots:
    """The loaded adapters by name, each in a slot; `layers` is None while there is none.

    An adapter that is unloaded or replaced keeps its slot while samples still use it.
    """

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.layers: AdapterLayers | None = None
        self._shape, self._device = shape, device
        self._slots: dict[int, _Loaded] = {}
        self._names: dict[str, int] = {}
        self._versions = count(1)

    def find(self, name: str) -> tuple[int, Hashable]:
        """Its slot, and what keys its prefixes (another after every load). Raises UnknownModel."""
        if name not in self._names:
            raise UnknownModel(f"no adapter named {name!r} is loaded", param="model", code="model_not_found")
        slot = self._names[name]
        return slot, self._slots[slot].space

    def learned(self, slot: int) -> tuple[int, ...]:
        """The tokens that stand before every prompt of this slot."""
        table = self._slots[slot].weights.learned
        first = self._shape.vocab
        return () if table is None else tuple(range(first, first + table.shape[0]))

    def load(self, name: str, path: Path, model: Weights, used: Set[int]) -> None:
        """Read a folder. Raises ModelLoadError naming the file. `used`: slots that samples depend on."""
        made = read_adapter_weights(path, self._shape, model)
        slot = next(i for i in count(1) if i not in self._slots)
        self._slots[slot] = _Loaded((name, next(self._versions)), made)
        self._names[name] = slot
        self._free(used)

    def unload(self, name: str, used: Set[int]) -> None:
        """Forget a name. Raises UnknownModel."""
        self.find(name)
        del self._names[name]
        self._free(used)

    def _free(self, used: Set[int]) -> None:
        """Let go of slots that nobody needs, and lay out the others."""
        kept = used | set(self._names.values())
        self._slots = {slot: one for slot, one in self._slots.items() if slot in kept}
        made = {slot: one.weights for slot, one in self._slots.items()}
        self.layers = AdapterLayers(made, self._device) if made else None


FUSED = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
SUBLAYERS = {"attention": "out", "mlp": "down"}
"""Where bottlenecks stand, by the matrix that the sublayer ends in."""


def read_adapter_weights(path: Path, shape: Shape, model: Weights) -> AdapterWeights:
    """Read a folder. Raises ModelLoadError naming the file and what does not fit."""
    file = read_adapter(path)
    reader = _Reader(file, shape, model)
    made = {"lora": reader.lora, "prompt": reader.prompt, "bottleneck": reader.bottlenecks}[file.kind]()
    if reader.tensors:
        raise ModelLoadError(f"{file.weights}: cannot be applied to this model: {sorted(reader.tensors)[0]}")
    return made


class _Reader:
    """Takes tensors out of one file; what is left at the end could not be applied."""

    def __init__(self, file: AdapterFile, shape: Shape, model: Weights) -> None:
        self.file, self.shape, self.model = file, shape, model
        try:
            with safe_open(str(file.weights), framework="pt") as found:
                names = list(found.keys())
                # By their names from `layers.` on.
                self.tensors = {name[max(0, name.find("layers.")) :]: found.get_tensor(name).float() for name in names}
        except (SafetensorError, OSError) as error:
            raise ModelLoadError(f"{file.weights}: {str(error).splitlines()[0]}") from None

    def lora(self) -> AdapterWeights:
        found: dict[Place, Pair] = {}
        for layer in range(self.shape.layers):
            for place, parts in FUSED.items():
                pairs = [self._pair(f"layers.{layer}.{part}") for part in parts]
                if any(pair is not None for pair in pairs):
                    found[layer, place] = self._fuse(layer, place, pairs)
        if not found and not self.tensors:
            raise ModelLoadError(f"{self.file.weights}: holds no LoRA weights")
        return AdapterWeights(pairs=found)

    def prompt(self) -> AdapterWeights:
        table = self._take("prompt_embeddings", (self.file.length, self.shape.hidden))
        return AdapterWeights(learned=self._placed(table))

    def bottlenecks(self) -> AdapterWeights:
        hidden = self.shape.hidden
        found: dict[Place, Bottleneck] = {}
        for layer in range(self.shape.layers):
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
        return AdapterWeights(bottlenecks=found)

    def _fuse(self, layer: int, place: str, pairs: list[Pair | None]) -> Pair:
        s, base = self.shape, self.model.layers[layer]
        matrices = {"qkv": base.qkv, "out": base.out, "gate_up": base.gate_up, "down": base.down}
        inputs, outputs = matrices[place].shape
        narrow = s.kv_heads * s.head_dim
        even = [outputs // len(pairs)] * len(pairs)
        widths = [s.heads * s.head_dim, narrow, narrow] if place == "qkv" else even
        downs, ups = list[Tensor](), list[Tensor]()
        for i, (pair, width) in enumerate(zip(pairs, widths, strict=True)):
            a, b = pair or (torch.zeros(0, inputs), torch.zeros(width, 0))
            if a.shape[1] != inputs or b.shape != (width, a.shape[0]):
                raise ModelLoadError(f"{self.file.weights}: layer {layer} {place}: shapes do not fit this model")
            downs.append(a.t())
            turned = place == "qkv" and i < 2 and pair is not None
            ups.append((interleave(b, s.head_dim) if turned else b).t() * self.file.scale)
        down, up = torch.cat(downs, 1), torch.block_diag(*ups)
        if place == "qkv" and base.norm_in is None:
            down *= base.norm_in_weight.float().cpu().unsqueeze(1)
        if place == "gate_up" and base.norm_mlp is None:
            down *= base.norm_mlp_weight.float().cpu().unsqueeze(1)
        return self._placed(down), self._placed(up)

    def _pair(self, at: str) -> Pair | None:
        a, b = (self.tensors.pop(f"{at}.lora_{side}.weight", None) for side in "AB")
        if a is None or b is None:
            if a is b:
                return None
            raise ModelLoadError(f"{self.file.weights}: {at} has only one of lora_A and lora_B")
        if a.dim() != 2 or b.dim() != 2:
            raise ModelLoadError(f"{self.file.weights}: {at}: shapes do not fit this model")
        return a, b

    def _take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor that must be there; -1 stands for any size."""
        found = self.tensors.pop(name, None)
        if found is None:
            raise ModelLoadError(f"{self.file.weights}: has no tensor {name}")
        if found.dim() != len(shape) or any(w not in (-1, g) for g, w in zip(found.shape, shape, strict=True)):
            raise ModelLoadError(
                f"{self.file.weights}: {name} is {tuple(found.shape)}, which does not fit this model ({shape})"
            )
        return found

    def _placed(self, tensor: Tensor) -> Tensor:
        like = self.model.norm
        return tensor.to(like.device, like.dtype)
