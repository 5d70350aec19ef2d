"""Which matrices lose too much by 8-bit codes is measured while a model is loaded.

A few tokens go through the layers as these are read. Each matrix is multiplied both ways with the states that really
come to it: in codes, and as it is stored. Where the results differ by more than LIMIT it stays as it is. What goes on
to the next matrix is what the loaded model would make.

    error = sqrt(mean over tokens of |y8 - y|² / |y|²)

The tokens are drawn from the first of the vocabulary, which in vocabularies made by merging are the frequent ones, and
begin at position 0, where the largest activations of a model stand (Sun et al. 2024, arXiv:2402.17762, section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.model.int8 import Int8, quantise
from reason_engine.engines.embedded.model.shape import Shape
from reason_engine.engines.embedded.model.weights import Builder, Layer, Layout, Matrix, Weights, built

LIMIT = 0.1
"""Error from which on a matrix stays as it is."""
TOKENS, FREQUENT = 32, 8192


@dataclass(frozen=True, slots=True)
class Measured:
    """A matrix: its error in codes, how many numbers it has, whether it became codes."""

    name: str
    error: float
    size: int
    codes: bool


def build_measured(
    tensors: Mapping[str, Tensor],
    shape: Shape,
    dtype: torch.dtype,
    device: torch.device,
    source: str,
    layout: Layout,
    limit: float = LIMIT,
) -> tuple[Weights, list[Measured]]:
    """Weights in 8-bit codes but for the matrices that lose by it. Raises ModelLoadError naming source or tensor."""
    return built(source, lambda: _build(Builder(tensors, shape, dtype, device, layout), limit))


def _build(builder: Builder, limit: float) -> tuple[Weights, list[Measured]]:
    s, trials = builder.shape, list[_Trial]()

    def attempt(name: str, size: tuple[int, int], read: Callable[[], Tensor]) -> _Trial:
        trials.append(_Trial(builder, name, size, read, limit))
        return trials[-1]

    rows, layers = builder.rows(), builder.layers(attempt)
    head = attempt("lm_head", (s.hidden, s.vocab), builder.head)
    head.known = (rows.code_VH, rows.scale_V) if s.tied else None
    norm = builder.take("norm.weight", s.hidden).to(builder.stream)
    weights = Weights(rows, layers, norm, head)
    decoder = Decoder(s, weights, builder.dtype, builder.device)
    count = min(TOKENS, s.context)
    generator = torch.Generator().manual_seed(0)
    tokens_N = torch.randint(min(FREQUENT, s.vocab), (count,), generator=generator).to(builder.device)
    positions_N = torch.arange(count, device=builder.device)
    decoder.logits(decoder.forward(tokens_N, positions_N, _attend, count))
    whole = rows if head.codes or not s.tied else builder.embedding().to(builder.dtype)
    made = Weights(whole, [_settled(layer) for layer in layers], norm, head.settled())
    return made, [Measured(one.name, one.error, one.shape[0] * one.shape[1], one.codes) for one in trials]


class _Trial:
    """A matrix that is read, measured and made by its first product."""

    def __init__(
        self, builder: Builder, name: str, size: tuple[int, int], read: Callable[[], Tensor], limit: float
    ) -> None:
        self.builder, self.name, self.shape, self.read, self.limit = builder, name, size, read, limit
        self.known: tuple[Tensor, Tensor] | None = None
        """Its codes and scales."""
        self.error, self.codes = 0.0, False
        self._made: Matrix | None = None

    def product(self, x_NI: Tensor) -> Tensor:
        weight_OI = self.read()
        plain = self.builder.dtype
        exact_NO = torch.mm(x_NI.to(plain), weight_OI.to(plain).t()).float()
        made = Int8(*(self.known or quantise(weight_OI)), self.builder.layout.kernel)
        found_NO = made.product(x_NI.float())
        lost_N = (found_NO - exact_NO).square().sum(1) / exact_NO.square().sum(1).clamp_min(1e-30)
        self.error = float(lost_N.mean().sqrt())
        self.codes = self.error <= self.limit
        self._made = made if self.codes else self.builder.laid_out(weight_OI)
        return (found_NO if self.codes else exact_NO).to(x_NI.dtype)

    def settled(self) -> Matrix:
        """What it became."""
        assert self._made is not None
        return self._made


def _settled(layer: Layer) -> Layer:
    for name in ("qkv", "out", "gate_up", "down"):
        trial = getattr(layer, name)
        assert isinstance(trial, _Trial)
        setattr(layer, name, trial.settled())
    return layer


def _attend(layer: int, q_NQD: Tensor, kv_N2KD: Tensor) -> Tensor:
    """Of one sequence that is all there is."""
    q, (k, v) = q_NQD.transpose(0, 1), kv_N2KD.transpose(0, 1).chunk(2)
    a = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, enable_gqa=True)
    return a[0].transpose(0, 1).flatten(1)
