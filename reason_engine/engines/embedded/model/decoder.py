"""The decoder: tokens and positions in, hidden states out.

Shape suffixes: N tokens of this pass, H hidden, Q query heads, K key-value heads, D head size, B rows, V vocabulary.
Few operations per layer, since for small models much of the time goes into calling them: RMSNorm is a vector norm and
a quotient, rotary positions are one complex product, residuals are added inside the matrix product, and what a layer
makes is written where the layer before wrote.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from reason_engine.engines.embedded.model.adapters import AdapterLayers, Place
from reason_engine.engines.embedded.model.int8 import Int8
from reason_engine.engines.embedded.model.packed import Packed
from reason_engine.engines.embedded.model.shape import Shape
from reason_engine.engines.embedded.model.threads import ThreadChoice
from reason_engine.engines.embedded.model.weights import Matrix, Weights, build_weights

Attend = Callable[[int, Tensor, Tensor], Tensor]
"""(layer, q_NQD, kv_N2KD) -> (N, Q D): keeps the new keys and values, then attends."""
Rebuild = Callable[[Mapping[str, Tensor]], Weights]


class Decoder:
    """A decoder-only transformer; keys and values are kept by the caller, in `dtype`. No torch module: inference only.

    `rebuild` makes weights of other tensors as these were made. `precision` says what they are multiplied in, `notes`
    what was not to be had here. `threads` chooses how many a pass takes.
    """

    def __init__(
        self, shape: Shape, weights: Weights, dtype: torch.dtype, device: torch.device, rebuild: Rebuild | None = None
    ) -> None:
        self.shape, self.weights, self.dtype, self.device = shape, weights, dtype, device
        self.precision, self.notes = str(dtype).removeprefix("torch."), tuple[str, ...]()
        self.threads: ThreadChoice | None = None
        self._rebuild = rebuild or (lambda tensors: build_weights(tensors, shape, dtype, device, "the new weights"))
        self._hidden = _UnitNorm(shape.eps, shape.hidden, device)
        self._head = _UnitNorm(shape.eps, shape.head_dim, device)
        self._buffers: _Buffers | None = None
        self._rotations = self._rotation_table(min(shape.context, 4096))

    def replace_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with other weights of the same shapes, by their names in the checkpoint. Raises ModelLoadError."""
        self.weights = self._rebuild(tensors)

    def forward(
        self, tokens_N: Tensor, positions_N: Tensor, attend: Attend, longest: int, adapters: AdapterLayers | None = None
    ) -> Tensor:
        """Hidden states after the last layer, (N, H), not yet normalised. `longest`: the highest position plus one."""
        if self.threads is None:
            return self._forward(tokens_N, positions_N, attend, longest, adapters)
        self.threads.begin(tokens_N.shape[0])
        x = self._forward(tokens_N, positions_N, attend, longest, adapters)
        self.threads.end()
        return x

    def _forward(
        self, tokens_N: Tensor, positions_N: Tensor, attend: Attend, longest: int, adapters: AdapterLayers | None
    ) -> Tensor:
        s, n = self.shape, tokens_N.shape[0]
        b = self._buffers
        if b is None or b.tokens != n:
            b = self._buffers = _Buffers(n, self)
        if longest > self._rotations.shape[0]:
            self._rotations = self._rotation_table(min(s.context, 2 * longest))
        turn = self._rotations.index_select(0, positions_N)
        embedding = self.weights.embedding
        x = embedding.index_select(0, tokens_N) if adapters is None else adapters.embed(embedding, tokens_N)
        stream = self.weights.norm.dtype
        cast = stream != self.dtype
        x = x.to(stream)
        for i, layer in enumerate(self.weights.layers):
            h = self._norm(x, layer.norm_in)
            _product(h, layer.qkv, layer.qkv_bias, b.qkv)
            if adapters is not None:
                adapters.add(i, "qkv", h, b.qkv)
            self._rotate(b, layer.head_norm, turn)
            a = attend(i, b.q.to(self.dtype), b.kv.to(self.dtype)).to(stream) if cast else attend(i, b.q, b.kv)
            _residual(x, a, layer.out, (i, "out"), adapters)
            h = self._norm(x, layer.norm_mlp)
            _product(h, layer.gate_up, None, b.gate_up)
            if adapters is not None:
                adapters.add(i, "gate_up", h, b.gate_up)
            g = F.silu(b.gate).mul_(b.up)
            _residual(x, g, layer.down, (i, "down"), adapters)
        return x

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """Next-token logits in fp32, (N, vocabulary)."""
        states, head = self.states(hidden_NH), self.weights.head
        return (torch.mm(states, head) if isinstance(head, Tensor) else head.product(states)).float()

    def states(self, hidden_NH: Tensor) -> Tensor:
        """Hidden states as a head sees them, normalised."""
        return self._norm(hidden_NH, self.weights.norm)

    def _norm(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """RMSNorm (Zhang & Sennrich 2019): x / sqrt(mean(x²) + eps) * w, in fp32.

        Without a weight sqrt(H) is left out too: the matrix that comes next holds both.
        """
        if weight is not None and x.is_cuda:
            return F.rms_norm(x, (x.shape[-1],), weight, self.shape.eps)
        out = self._hidden.unit(x.float())
        return out if weight is None else out.mul_(self._hidden.root).to(x.dtype).mul_(weight)

    def _rotate(self, b: _Buffers, weight: Tensor | None, turn_N1D: Tensor) -> None:
        """Normalise the heads where the model does (the weight holds sqrt(D)), then rotate by position, in place."""
        x = b.qk.float()
        if weight is not None:
            x = self._head.unit(x).mul_(weight)
        pairs = _pairs(x)
        if b.pairs is not None:
            torch.mul(pairs, turn_N1D, out=b.pairs)
        else:
            b.qk.copy_(torch.view_as_real(pairs * turn_N1D).flatten(-2))

    def _rotation_table(self, positions: int) -> Tensor:
        """exp(i m f) per position m and frequency f, (positions, 1, D / 2), complex."""
        frequencies = torch.tensor(self.shape.frequencies, dtype=torch.float64)
        angles = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies)
        scale = torch.full_like(angles, self.shape.rotary_scale)
        return torch.polar(scale, angles).to(torch.complex64).unsqueeze(1).to(self.device)


class _UnitNorm:
    """x / sqrt(|x|² + size * eps): RMSNorm but for the factor sqrt(size), `root`."""

    def __init__(self, eps: float, size: int, device: torch.device) -> None:
        self.root = math.sqrt(size)
        self._least = torch.tensor(math.sqrt(eps * size), device=device)

    def unit(self, x: Tensor) -> Tensor:
        return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(self._least)


class _Buffers:
    """Where each layer writes its wide products, and the views of them that it needs; for one number of tokens."""

    def __init__(self, tokens: int, decoder: Decoder) -> None:
        s, layer = decoder.shape, decoder.weights.layers[0]
        self.tokens = tokens
        like = decoder.weights.norm
        self.qkv = like.new_empty(tokens, layer.qkv.shape[1])
        heads = self.qkv.view(tokens, s.heads + 2 * s.kv_heads, s.head_dim)
        self.qk, self.q, self.kv = heads[:, : s.heads + s.kv_heads], heads[:, : s.heads], heads[:, s.heads :]
        self.pairs = _pairs(self.qk) if like.dtype == torch.float32 else None
        self.gate_up = like.new_empty(tokens, layer.gate_up.shape[1])
        self.gate, self.up = self.gate_up.chunk(2, -1)


def _product(x: Tensor, matrix: Matrix, bias: Tensor | None, out: Tensor) -> None:
    """Multiply and add the bias, into `out`."""
    if isinstance(matrix, Tensor):
        if bias is None:
            torch.mm(x, matrix, out=out)
        else:
            torch.addmm(bias, x, matrix, out=out)
    elif isinstance(matrix, Int8) and x.dtype == torch.float32:
        sums, scale = matrix.sums(x)
        if bias is None:
            torch.mul(sums, scale, out=out)
        else:
            torch.addcmul(bias, sums, scale, out=out)
    elif isinstance(matrix, Packed) and bias is not None:
        out.copy_(matrix.product(x, bias))
    else:
        out.copy_(matrix.product(x))
        if bias is not None:
            out.add_(bias)


def _residual(x: Tensor, y: Tensor, matrix: Matrix, place: Place, adapters: AdapterLayers | None) -> None:
    """Add a sublayer's output, y @ matrix, to the residual stream in place; what wraps the output comes before."""
    if adapters is not None and adapters.wraps:
        h = torch.mm(y, matrix) if isinstance(matrix, Tensor) else matrix.product(y)
        adapters.add(*place, y, h)
        adapters.wrap(*place, h)
        x.add_(h)
        return
    if isinstance(matrix, Tensor):
        x.addmm_(y, matrix)
    elif isinstance(matrix, Int8) and x.dtype == torch.float32:
        x.addcmul_(*matrix.sums(y))
    else:
        x.add_(matrix.product(y))
    if adapters is not None:
        adapters.add(*place, y, x)


def _pairs(x: Tensor) -> Tensor:
    """The last dimension as complex numbers, a view."""
    return torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))
