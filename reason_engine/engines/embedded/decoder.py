"""The forward pass: tokens and their positions in, hidden states out.

Shape suffixes: N tokens of this pass, H hidden, Q query heads, K key-value heads, D head size, B rows, V vocabulary.
Few operations per layer, since for small models the time goes into calling them: RMSNorm is a vector norm and a
product, rotary positions are one complex product, residuals are added inside the matrix product.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from reason_engine.engines.embedded.lora import Patch
from reason_engine.engines.embedded.shape import Shape
from reason_engine.engines.embedded.weights import Weights

Attend = Callable[[int, Tensor, Tensor], Tensor]
"""(layer, q_NQD, kv_N2KD) -> (N, Q D): keeps the new keys and values, then attends."""


class Decoder:
    """A decoder-only transformer; keys and values are kept by the caller. Not a torch module: inference only."""

    def __init__(self, shape: Shape, weights: Weights, dtype: torch.dtype, device: torch.device) -> None:
        self.shape, self.weights, self.dtype, self.device = shape, weights, dtype, device
        self._eps = torch.tensor(shape.eps, device=device)
        self._per_hidden, self._per_head = 1 / shape.hidden, 1 / shape.head_dim
        self._rotations = self._rotation_table(min(shape.context, 4096))

    def forward(
        self,
        tokens_N: Tensor,
        positions_N: Tensor,
        attend: Attend,
        longest: int,
        patch: Patch | None = None,
    ) -> Tensor:
        """Hidden states after the last layer, (N, H), not yet normalised. `longest`: the highest position plus one."""
        s, n = self.shape, tokens_N.shape[0]
        queries_keys = s.heads + s.kv_heads
        if longest > self._rotations.shape[0]:
            self._rotations = self._rotation_table(min(s.context, 2 * longest))
        turn = self._rotations.index_select(0, positions_N)
        x = self.weights.embedding.index_select(0, tokens_N)
        for i, layer in enumerate(self.weights.layers):
            h = self._norm(x, layer.norm_in)
            qkv = (
                torch.mm(h, layer.qkv)
                if layer.qkv_bias is None
                else torch.addmm(layer.qkv_bias, h, layer.qkv)
            )
            if patch is not None:
                patch.add(i, "qkv", h, qkv)
            qkv = qkv.view(n, queries_keys + s.kv_heads, s.head_dim)
            self._rotate(qkv[:, :queries_keys], layer.head_norm, turn)
            a = attend(i, qkv[:, : s.heads], qkv[:, s.heads :])
            x = torch.addmm(x, a, layer.out)
            if patch is not None:
                patch.add(i, "out", a, x)
            h = self._norm(x, layer.norm_mlp)
            up = torch.mm(h, layer.gate_up)
            if patch is not None:
                patch.add(i, "gate_up", h, up)
            gate, up = up.chunk(2, -1)
            g = F.silu(gate).mul_(up)
            x = torch.addmm(x, g, layer.down)
            if patch is not None:
                patch.add(i, "down", g, x)
        return x

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """Next-token logits in fp32, (N, vocabulary)."""
        return torch.mm(self._norm(hidden_NH, self.weights.norm), self.weights.head).float()

    def _norm(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """RMSNorm (Zhang & Sennrich 2019): x / sqrt(mean(x²) + eps) * w, in fp32."""
        if weight is not None and x.is_cuda:
            return F.rms_norm(x, (x.shape[-1],), weight, self.shape.eps)
        x32 = x.float()
        length = torch.linalg.vector_norm(x32, dim=-1, keepdim=True)
        out = x32 * torch.addcmul(self._eps, length, length, value=self._per_hidden).rsqrt_()
        return out if weight is None else out.to(x.dtype).mul_(weight)

    def _rotate(self, qk_NAD: Tensor, weight: Tensor | None, turn_N1D: Tensor) -> None:
        """Normalise the heads where the model does, then rotate by position, in place."""
        x = qk_NAD.float()
        if weight is not None:
            length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
            x = x * torch.addcmul(self._eps, length, length, value=self._per_head).rsqrt_()
            x.mul_(weight)
        turned = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn_N1D
        qk_NAD.copy_(torch.view_as_real(turned).flatten(-2))

    def _rotation_table(self, positions: int) -> Tensor:
        """exp(i m f) per position m and frequency f, (positions, 1, D / 2), complex."""
        frequencies = torch.tensor(self.shape.frequencies, dtype=torch.float64)
        angles = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies)
        scale = torch.full_like(angles, self.shape.rotary_scale)
        return torch.polar(scale, angles).to(torch.complex64).unsqueeze(1).to(self.device)
