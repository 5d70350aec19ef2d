"""Safetensors to the matrices that the decoder multiplies with: q, k and v in one, gate and up in one.

A matrix is kept so that `x @ M` is one product. In fp32 it is laid out input-major, which is faster for few rows, and
the norm before it is folded in, sqrt(size) included (`(x * w) @ M = x @ (w[:, None] * M)`); in half precision neither
pays. Quantised matrices stay as they are, and no norm is folded into them; see `quantised`.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from reason_engine.engines.checkpoint.checkpoint import checkpoint_at
from reason_engine.engines.embedded.model.quantised import Codes, Quantised, is_kept, outputs_of, pack, read_codes
from reason_engine.engines.embedded.model.shape import Shape
from reason_engine.errors import ModelLoadError

WRAPPED = "pretrained_model."
"""Before every name, where a model was saved inside a wrapper that added a value head."""
Matrix = Tensor | Quantised
"""(in, out)."""


@dataclass(slots=True)
class Layer:
    """One decoder layer. A norm is None where it is folded into the matrix after it; `head_norm` holds sqrt(D)."""

    norm_in: Tensor | None
    qkv: Matrix
    qkv_bias: Tensor | None
    head_norm: Tensor | None
    out: Matrix
    norm_mlp: Tensor | None
    gate_up: Matrix
    down: Matrix
    norm_in_weight: Tensor
    norm_mlp_weight: Tensor


@dataclass(slots=True)
class Weights:
    """All of a decoder. `embedding` is (vocabulary, hidden), `head` (hidden, vocabulary)."""

    embedding: Tensor
    layers: list[Layer]
    norm: Tensor
    head: Tensor


def load_weights(folder: Path, shape: Shape, dtype: torch.dtype, device: torch.device) -> Weights:
    """Read the folder's safetensors. Raises ModelLoadError naming the file or the missing tensor."""
    tensors = {
        name.removeprefix(WRAPPED).removeprefix("model."): _read(tensor, name, dtype)
        for name, tensor in checkpoint_at(folder).tensors()
    }
    made = build_weights(tensors, shape, dtype, device, str(folder))
    tensors.clear()
    _give_back()
    return made


def build_weights(
    tensors: Mapping[str, Tensor], shape: Shape, dtype: torch.dtype, device: torch.device, source: str
) -> Weights:
    """From tensors of that dtype, by name without `model.`. Raises ModelLoadError naming source or tensor."""
    try:
        return _Builder(tensors, shape, dtype, device).build()
    except KeyError as error:
        raise ModelLoadError(f"{source}: the checkpoint has no tensor {error}") from None
    except RuntimeError as error:
        raise ModelLoadError(f"{source}: {str(error).splitlines()[0]}") from None


class _Builder:
    def __init__(self, tensors: Mapping[str, Tensor], shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self.tensors, self.shape, self.device = tensors, shape, device
        self.fold = self.input_major = dtype == torch.float32 and device.type == "cpu" and not shape.scheme

    def build(self) -> Weights:
        s = self.shape
        embedding = self.take("embed_tokens.weight", s.vocab, s.hidden)
        layers = [self.layer(f"layers.{i}.") for i in range(s.layers)]
        top = embedding if s.tied else self.take("lm_head.weight", s.vocab, s.hidden)
        head = top.t().contiguous() if self.input_major else top.t()
        return Weights(embedding, layers, self.take("norm.weight", s.hidden), head)

    def layer(self, at: str) -> Layer:
        s = self.shape
        wide, narrow = s.heads * s.head_dim, s.kv_heads * s.head_dim
        root = math.sqrt(s.hidden) if self.fold else 1.0
        norm_in = self.take(at + "input_layernorm.weight", s.hidden) * root
        norm_mlp = self.take(at + "post_attention_layernorm.weight", s.hidden) * root
        attention = at + "self_attn."
        qkv = {"q": wide, "k": narrow, "v": narrow}
        inner = outputs_of(self.tensors, at + "mlp.gate_proj", s.scheme)
        return Layer(
            None if self.fold else norm_in,
            self.matrix([(f"{attention}{n}_proj", size, n in "qk") for n, size in qkv.items()], s.hidden, norm_in),
            self.bias(attention),
            self.head_norm(attention) if s.head_norm else None,
            self.matrix([(attention + "o_proj", s.hidden, False)], wide),
            None if self.fold else norm_mlp,
            self.matrix([(f"{at}mlp.{n}_proj", inner, False) for n in ("gate", "up")], s.hidden, norm_mlp),
            self.matrix([(at + "mlp.down_proj", s.hidden, False)], inner),
            norm_in,
            norm_mlp,
        )

    def matrix(self, parts: list[tuple[str, int, bool]], inputs: int, norm: Tensor | None = None) -> Matrix:
        """Input by output, with the norm before it folded in, of parts (name, outputs, interleaved) side by side."""
        if self.shape.scheme and (codes := self.codes(parts, inputs)):
            return pack(codes, self.device)
        weight = torch.cat([self.part(name, size, inputs, turned) for name, size, turned in parts])
        if self.fold and norm is not None:
            weight = weight * norm
        return weight.t().contiguous() if self.input_major else weight.t()

    def part(self, name: str, outputs: int, inputs: int, interleaved: bool) -> Tensor:
        found = self.take(name + ".weight", outputs, inputs)
        return interleave(found, self.shape.head_dim) if interleaved else found

    def codes(self, parts: list[tuple[str, int, bool]], inputs: int) -> list[Codes]:
        """The parts as their file's codes; none where they are not quantised."""
        assert self.shape.scheme
        found: list[Codes] = []
        for name, outputs, interleaved in parts:
            one = read_codes(self.tensors, name, (outputs, inputs), self.shape.scheme)
            if one is not None:
                found.append(one.rows(lambda rows: interleave(rows, self.shape.head_dim)) if interleaved else one)
        if found and len(found) < len(parts):
            raise ModelLoadError(f"tensor {parts[0][0]} and those beside it are not quantised alike")
        return found

    def bias(self, at: str) -> Tensor | None:
        if at + "q_proj.bias" not in self.tensors:
            return None
        q, k, v = (self.take(f"{at}{name}_proj.bias") for name in "qkv")
        return torch.cat([interleave(q, self.shape.head_dim), interleave(k, self.shape.head_dim), v])

    def head_norm(self, at: str) -> Tensor:
        """One weight a head of q and k, (heads + kv_heads, head_dim), times sqrt(head_dim), kept in fp32."""
        s = self.shape
        q, k = (interleave(self.take(f"{at}{name}_norm.weight", s.head_dim), s.head_dim) for name in "qk")
        both = torch.cat([q.expand(s.heads, -1), k.expand(s.kv_heads, -1)]).float()
        return both * math.sqrt(s.head_dim)

    def take(self, name: str, *shape: int) -> Tensor:
        found = self.tensors[name]
        if shape and tuple(found.shape) != shape:
            raise ModelLoadError(f"tensor {name} is {tuple(found.shape)} where config.json asks for {shape}")
        return found.to(self.device)


def _give_back() -> None:
    """Return to the system what the allocator keeps of all that was only read or converted: as much as the weights."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _read(tensor: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() and not is_kept(name) else tensor


def interleave(weight: Tensor, head_dim: int) -> Tensor:
    """Reorder each head's outputs, (out, ...), from (first half, second half) to pairs, so that a rotation is a complex
    product.

    q and k are permuted alike, so their products stay what they were.
    """
    halves = weight.view(-1, 2, head_dim // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)
