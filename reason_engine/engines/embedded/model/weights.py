"""Safetensors to the matrices that the decoder multiplies with: q, k and v in one, gate and up in one.

A matrix is kept so that `x @ M` is one product. In fp32 it is laid out input-major, which is faster for few rows, and
the norm before it is folded in, sqrt(size) included (`(x * w) @ M = x @ (w[:, None] * M)`); in half precision neither
pays. Quantised matrices stay as they are, and no norm is folded into them; see `quantised`. Beside those, and beside
packed ones, what goes from layer to layer is fp32 on a CPU, whatever keys and values are kept in.

Tensors may be read when they are asked for: each is asked for once or twice, and nothing is kept of it but what is made
of it.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from reason_engine.engines.embedded.model.codes import Codes, is_kept, outputs_of, read_codes
from reason_engine.engines.embedded.model.int8 import Int8, Int8Rows, Kernel, quantise
from reason_engine.engines.embedded.model.packed import Cast, Packed
from reason_engine.engines.embedded.model.quantised import Product, pack
from reason_engine.engines.embedded.model.shape import Shape
from reason_engine.engines.embedded.model.stored import plain_names, stored_tensors
from reason_engine.errors import ModelLoadError

Matrix = Tensor | Product
"""(in, out)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How matrices are kept. `int8`: all in 8-bit codes, and 4-bit ones have a copy of those; `kernel` multiplies
    codes, None: what any machine has. `packed`: others, in bf16, as oneDNN multiplies them."""

    int8: bool = False
    kernel: Kernel | None = None
    packed: bool = False


T = TypeVar("T")
PLAIN = Layout()
Quantise = Callable[[str, tuple[int, int], Callable[[], Tensor]], Product]
"""Makes a matrix of codes: its name, its (in, out), and what reads it as (out, in)."""


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
    """All of a decoder. `embedding` is (vocabulary, hidden), `head` (hidden, vocabulary). Hidden states have the type
    of `norm`.

    A packed head cannot be read by rows, so that beside it a tied embedding is a copy.
    """

    embedding: Tensor | Int8Rows
    layers: list[Layer]
    norm: Tensor
    head: Matrix


def load_weights(
    folder: Path, shape: Shape, dtype: torch.dtype, device: torch.device, layout: Layout = PLAIN
) -> Weights:
    """Read the safetensors of a folder, or a GGUF file. Raises ModelLoadError naming the file or the missing tensor."""
    return build_weights(stored_tensors(folder), shape, dtype, device, str(folder), layout)


def build_weights(
    tensors: Mapping[str, Tensor],
    shape: Shape,
    dtype: torch.dtype,
    device: torch.device,
    source: str,
    layout: Layout = PLAIN,
) -> Weights:
    """From tensors by their names in a checkpoint. Raises ModelLoadError naming source or tensor."""
    return built(source, lambda: Builder(tensors, shape, dtype, device, layout).build())


def built(source: str, make: Callable[[], T]) -> T:
    """What is made of tensors of that source; ModelLoadError where one is missing or does not fit."""
    try:
        made = make()
    except KeyError as error:
        raise ModelLoadError(f"{source}: the checkpoint has no tensor {error}") from None
    except RuntimeError as error:
        raise ModelLoadError(f"{source}: {str(error).splitlines()[0]}") from None
    give_back()
    return made


class Builder:
    """Makes a decoder's weights of tensors. `quantised` makes a matrix of codes: of its name and shape, and of what
    reads it."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        shape: Shape,
        dtype: torch.dtype,
        device: torch.device,
        layout: Layout = PLAIN,
    ) -> None:
        self.tensors, self.shape, self.dtype, self.device, self.layout = (
            plain_names(tensors),
            shape,
            dtype,
            device,
            layout,
        )
        laid_out = device.type == "cpu" and (layout.int8 or layout.packed or shape.scheme is not None)
        self.stream = torch.float32 if laid_out else dtype
        """Of hidden states."""
        self.fold = self.input_major = dtype == torch.float32 and device.type == "cpu" and not laid_out

    def build(self) -> Weights:
        """All of them."""
        s = self.shape
        if self.turns_to_codes:
            embedding = self.rows()
            codes = (embedding.code_VH, embedding.scale_V) if s.tied else quantise(self.head())
            head = Int8(*codes, self.layout.kernel)
        else:
            embedding = self.take("embed_tokens.weight", s.vocab, s.hidden)
            head = self.laid_out(embedding if s.tied else self.head())
        return Weights(embedding, self.layers(self.codes_of), self.take("norm.weight", s.hidden).to(self.stream), head)

    @property
    def turns_to_codes(self) -> bool:
        """Whether matrices are turned into codes: those of a quantised checkpoint are."""
        return self.layout.int8 and self.shape.scheme is None

    def layers(self, quantised: Quantise) -> list[Layer]:
        """The layers; `quantised` makes their matrices where they are turned into codes."""
        inner = outputs_of(self.tensors, "layers.0.mlp.gate_proj", self.shape.scheme)
        return [self.layer(f"layers.{i}.", inner, quantised) for i in range(self.shape.layers)]

    def codes_of(self, name: str, size: tuple[int, int], read: Callable[[], Tensor]) -> Product:
        """A matrix as codes."""
        return Int8(*quantise(read()), self.layout.kernel)

    def rows(self) -> Int8Rows:
        """The embedding as codes."""
        return Int8Rows(*quantise(self.embedding()))

    def embedding(self) -> Tensor:
        """The embedding as it is stored."""
        return self.stored("embed_tokens.weight", self.shape.vocab, self.shape.hidden)

    def head(self) -> Tensor:
        """(vocabulary, hidden), as it is stored."""
        return self.stored(
            "embed_tokens.weight" if self.shape.tied else "lm_head.weight", self.shape.vocab, self.shape.hidden
        )

    def laid_out(self, weight_OI: Tensor) -> Matrix:
        """A matrix that stays in its precision, as it is multiplied."""
        weight_OI = weight_OI.to(self.dtype)
        if self.layout.packed and weight_OI.dtype == torch.bfloat16:
            return Packed(weight_OI)
        if weight_OI.dtype != self.stream:
            return Cast(weight_OI)
        return weight_OI.t().contiguous() if self.input_major else weight_OI.t()

    def layer(self, at: str, inner: int, quantised: Quantise) -> Layer:
        s = self.shape
        wide, narrow = s.heads * s.head_dim, s.kv_heads * s.head_dim
        root = math.sqrt(s.hidden) if self.fold else 1.0
        norm_in = self.take(at + "input_layernorm.weight", s.hidden).to(self.stream) * root
        norm_mlp = self.take(at + "post_attention_layernorm.weight", s.hidden).to(self.stream) * root
        attention = at + "self_attn."
        qkv = {"q": wide, "k": narrow, "v": narrow}

        def matrix(parts: list[tuple[str, int, bool]], inputs: int, norm: Tensor | None = None) -> Matrix:
            if not self.turns_to_codes:
                return self.matrix(parts, inputs, norm)
            size = (inputs, sum(outputs for _, outputs, _ in parts))
            names = "+".join(name.removeprefix(at) for name, _, _ in parts)
            return quantised(at + names, size, lambda: self.beside(parts, inputs, stored=True))

        return Layer(
            None if self.fold else norm_in,
            matrix([(f"{attention}{n}_proj", size, n in "qk") for n, size in qkv.items()], s.hidden, norm_in),
            self.bias(attention),
            self.head_norm(attention) if s.head_norm else None,
            matrix([(attention + "o_proj", s.hidden, False)], wide),
            None if self.fold else norm_mlp,
            matrix([(f"{at}mlp.{n}_proj", inner, False) for n in ("gate", "up")], s.hidden, norm_mlp),
            matrix([(at + "mlp.down_proj", s.hidden, False)], inner),
            norm_in,
            norm_mlp,
        )

    def matrix(self, parts: list[tuple[str, int, bool]], inputs: int, norm: Tensor | None = None) -> Matrix:
        """Input by output, with the norm before it folded in, of parts (name, outputs, interleaved) side by side."""
        if self.shape.scheme and (codes := self.codes(parts, inputs)):
            return pack(codes, self.device, self.layout.kernel, wide=self.layout.int8)
        weight = self.beside(parts, inputs)
        return self.laid_out(weight * norm if self.fold and norm is not None else weight)

    def beside(self, parts: list[tuple[str, int, bool]], inputs: int, *, stored: bool = False) -> Tensor:
        """Parts one after the other, (outputs, inputs). `stored`: in the precision of storage."""
        read = self.stored if stored else self.take
        found = [
            interleave(whole, self.shape.head_dim) if turned else whole
            for whole, turned in ((read(name + ".weight", size, inputs), turned) for name, size, turned in parts)
        ]
        return found[0] if len(found) == 1 else torch.cat(found)

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
        both = torch.cat([interleave(q, self.shape.head_dim), interleave(k, self.shape.head_dim), v])
        return both.to(self.stream)

    def head_norm(self, at: str) -> Tensor:
        """One weight a head of q and k, (heads + kv_heads, head_dim), times sqrt(head_dim), kept in fp32."""
        s = self.shape
        q, k = (interleave(self.take(f"{at}{name}_norm.weight", s.head_dim), s.head_dim) for name in "qk")
        both = torch.cat([q.expand(s.heads, -1), k.expand(s.kv_heads, -1)]).float()
        return both * math.sqrt(s.head_dim)

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor in the precision that is computed in, but for codes and their scales."""
        found = self.stored(name, *shape)
        return found.to(self.dtype) if found.is_floating_point() and not is_kept(name) else found

    def stored(self, name: str, *shape: int) -> Tensor:
        """A tensor in the precision of storage, of that shape."""
        found = self.tensors[name]
        if shape and tuple(found.shape) != shape:
            raise ModelLoadError(f"tensor {name} is {tuple(found.shape)} where config.json asks for {shape}")
        return found.to(self.device)


def give_back() -> None:
    """Return to the system what the allocator keeps of all that was only read or converted: as much as the weights."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def interleave(weight: Tensor, head_dim: int) -> Tensor:
    """Reorder each head's outputs, (out, ...), from (first half, second half) to pairs, so that a rotation is a complex
    product.

    q and k are permuted alike, so their products stay what they were.
    """
    halves = weight.view(-1, 2, head_dim // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)
