"""What a layer does between its products: norms, rotary positions, gates. By torch on any device, or compiled.

Few operations of torch, since for small models much of the time goes into calling them: RMSNorm is a vector norm and a
quotient, rotary positions are one complex product. Where matrices are 8-bit codes on a CPU, products are so quick that
these calls take as long; there the loops of `compiled` take their place.

Shape suffixes: N tokens of this pass, H hidden, Q query heads, K key-value heads, D head size.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from reason_engine.engines.embedded.model.shape import Shape
from reason_engine.engines.embedded.model.weights import Weights


class Operations(Protocol):
    """Of passes of `tokens` tokens. `qkv` and `gate_up` are where each layer writes its wide products."""

    tokens: int
    qkv: Tensor
    gate_up: Tensor

    def turn_by(self, turn_N1D: Tensor) -> None:
        """A pass begins whose tokens stand at places of these complex factors."""
        ...

    def norm(self, x_NH: Tensor, weight_H: Tensor | None) -> Tensor:
        """RMSNorm (Zhang & Sennrich 2019): x / sqrt(mean(x²) + eps) · w, in fp32; of any number of tokens.

        Without a weight sqrt(H) is left out too: the matrix that comes next holds both.
        """
        ...

    def rotate(self, weight_HD: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of `qkv`: heads normalised where the model does (the weight holds sqrt(D)), then rotated by position; (N, Q,
        D) and (N, 2 K, D), in the type of keys and values."""
        ...

    def gate(self) -> Tensor:
        """Of `gate_up`: silu of the first half times the second, (N, inner)."""
        ...


def operations_for(tokens: int, shape: Shape, weights: Weights, dtype: torch.dtype) -> Operations:
    """The quickest ones for these weights; `dtype` is that of keys and values."""
    stream = weights.norm
    if stream.device.type == "cpu" and stream.dtype == torch.float32 and weights.layers[0].norm_in is not None:
        return CompiledOperations(tokens, shape, weights, dtype)
    return TorchOperations(tokens, shape, weights, dtype)


class TorchOperations:
    """By torch, on any device and in any precision."""

    def __init__(self, tokens: int, shape: Shape, weights: Weights, dtype: torch.dtype) -> None:
        like, layer = weights.norm, weights.layers[0]
        self.tokens = tokens
        self.qkv = like.new_empty(tokens, layer.qkv.shape[1])
        self.gate_up = like.new_empty(tokens, layer.gate_up.shape[1])
        self._dtype, self._eps = dtype, shape.eps
        self._hidden = _UnitNorm(shape.eps, shape.hidden, like.device)
        self._head = _UnitNorm(shape.eps, shape.head_dim, like.device)
        heads = self.qkv.view(tokens, shape.heads + 2 * shape.kv_heads, shape.head_dim)
        self._qk, self._q, self._kv = heads[:, : -shape.kv_heads], heads[:, : shape.heads], heads[:, shape.heads :]
        self._pairs = _pairs(self._qk) if like.dtype == torch.float32 else None
        self._gate, self._up = self.gate_up.chunk(2, -1)
        self._turn_N1D = torch.empty(0)

    def turn_by(self, turn_N1D: Tensor) -> None:
        self._turn_N1D = turn_N1D

    def norm(self, x_NH: Tensor, weight_H: Tensor | None) -> Tensor:
        if weight_H is not None and x_NH.is_cuda:
            return F.rms_norm(x_NH, (x_NH.shape[-1],), weight_H, self._eps)
        out = self._hidden.unit(x_NH.float())
        return out if weight_H is None else out.mul_(self._hidden.root).to(x_NH.dtype).mul_(weight_H)

    def rotate(self, weight_HD: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self._qk.float()
        if weight_HD is not None:
            x = self._head.unit(x).mul_(weight_HD)
        pairs = _pairs(x)
        if self._pairs is not None:
            torch.mul(pairs, self._turn_N1D, out=self._pairs)
        else:
            self._qk.copy_(torch.view_as_real(pairs * self._turn_N1D).flatten(-2))
        return self._q.to(self._dtype), self._kv.to(self._dtype)

    def gate(self) -> Tensor:
        return F.silu(self._gate).mul_(self._up)


class CompiledOperations:
    """By loops over fp32 on a CPU, of a model no norm of which is folded into the matrix after it."""

    def __init__(self, tokens: int, shape: Shape, weights: Weights, dtype: torch.dtype) -> None:
        from reason_engine.engines.embedded.model import compiled

        layer, heads = weights.layers[0], shape.heads + 2 * shape.kv_heads
        self.tokens, self._dtype, self._loops = tokens, dtype, compiled
        self.qkv = torch.empty(tokens, layer.qkv.shape[1])
        self.gate_up = torch.empty(tokens, layer.gate_up.shape[1])
        self._gated = torch.empty(tokens, layer.down.shape[0])
        self._heads, self._split = self.qkv.view(tokens, heads, shape.head_dim), shape.heads
        self._qk_NHD = self._heads[:, : -shape.kv_heads].numpy()
        self._gate_up_NI, self._gated_NG = self.gate_up.numpy(), self._gated.numpy()
        self._root = math.sqrt(shape.hidden)
        self._least_H, self._least_D = shape.eps * shape.hidden, shape.eps * shape.head_dim
        self._no_weight = torch.empty(0, 0).numpy()
        self._turn_ND = self._no_weight

    def turn_by(self, turn_N1D: Tensor) -> None:
        self._turn_ND = torch.view_as_real(turn_N1D).flatten(1).numpy()

    def norm(self, x_NH: Tensor, weight_H: Tensor | None) -> Tensor:
        assert weight_H is not None
        out_NH = torch.empty(x_NH.shape)
        self._loops.unit_rows(x_NH.numpy(), weight_H.numpy(), self._root, self._least_H, out_NH.numpy())
        return out_NH

    def rotate(self, weight_HD: Tensor | None) -> tuple[Tensor, Tensor]:
        weight = self._no_weight if weight_HD is None else weight_HD.numpy()
        self._loops.turn_heads(self._qk_NHD, weight, self._least_D, self._turn_ND)
        heads = self._heads.to(self._dtype)
        return heads[:, : self._split], heads[:, self._split :]

    def gate(self) -> Tensor:
        self._loops.gate_rows(self._gate_up_NI, self._gated_NG)
        return self._gated


class _UnitNorm:
    """x / sqrt(|x|² + size * eps): RMSNorm but for the factor sqrt(size), `root`."""

    def __init__(self, eps: float, size: int, device: torch.device) -> None:
        self.root = math.sqrt(size)
        self._least = torch.tensor(math.sqrt(eps * size), device=device)

    def unit(self, x: Tensor) -> Tensor:
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(self._least)


def _pairs(x: Tensor) -> Tensor:
    """The last dimension as complex numbers, a view."""
    return torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))
