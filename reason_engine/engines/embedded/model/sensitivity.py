"""Matrices become 8-bit codes by what really comes to them; those that lose too much by it stay as they are.

A few tokens go through the layers as these are read. A row of activations has one step for all its inputs, which the
largest of them decides, and the same few inputs are the largest for all tokens. So inputs are made more alike first, by
factors that the columns of the matrix take over (SmoothQuant, Xiao et al. 2023, arXiv:2211.10438, equation 4):

    x_j / s_j,  W_oj s_j,     s_j = sqrt(rms of x_j / rms of W_oj)        y stays what it is

Then the matrix is multiplied both ways: in codes, and as it is stored. Where the results differ by more than FINE its
inputs take two codes, with these factors or with none; where by more than LIMIT even then, it stays as it is. What goes
on to the next matrix is what the loaded model would make.

    error = sqrt(mean over tokens of |y8 - y|² / |y|²)

Departures: root mean squares stand in the place of maxima, and nothing is let below a quarter of its median, since a
few tokens tell little of inputs that hardly show. Factors are applied to the inputs of a product, whatever made them.

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
from reason_engine.engines.embedded.model.int8 import LEAST, Int8, quantise
from reason_engine.engines.embedded.model.shape import Shape
from reason_engine.engines.embedded.model.weights import Builder, Layer, Layout, Matrix, Weights, built, give_back

LIMIT, FINE = 0.06, 0.0125
"""Error beyond which a matrix stays as it is; up to which inputs take one code."""
TOKENS, FREQUENT, SOME = 64, 8192, 4096


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
    norm = builder.take("norm.weight", s.hidden).to(builder.stream)
    weights = Weights(rows, layers, norm, head)
    decoder = Decoder(s, weights, builder.dtype, builder.device)
    count = min(TOKENS, s.context)
    generator = torch.Generator().manual_seed(0)
    tokens_N = torch.randint(min(FREQUENT, s.vocab), (count,), generator=generator).to(builder.device)
    positions_N = torch.arange(count, device=builder.device)
    hidden_NH = decoder.forward(tokens_N, positions_N, _attend, count)
    give_back()  # the head is the largest matrix, and is read beside all that was made
    decoder.logits(hidden_NH)
    whole = rows if head.codes or not s.tied else builder.embedding().to(builder.dtype)
    made = Weights(whole, [_settled(layer) for layer in layers], norm, head.settled())
    return made, [Measured(one.name, one.error, one.shape[0] * one.shape[1], one.codes) for one in trials]


class _Trial:
    """A matrix that is read, measured and made by its first product."""

    def __init__(
        self, builder: Builder, name: str, size: tuple[int, int], read: Callable[[], Tensor], limit: float
    ) -> None:
        self.builder, self.name, self.shape, self.read, self.limit = builder, name, size, read, limit
        self.error, self.codes = float("inf"), False
        self._made: Matrix | None = None

    def product(self, x_NI: Tensor) -> Tensor:
        weight_OI = self.read()
        plain, kernel = self.builder.dtype, self.builder.layout.kernel
        exact_NO, factor_I = torch.empty(x_NI.shape[0], self.shape[1]), _factors(x_NI.float(), weight_OI)
        for at in range(0, self.shape[1], SOME):  # a head in another precision is not copied whole
            exact_NO[:, at : at + SOME] = torch.mm(x_NI.to(plain), weight_OI[at : at + SOME].to(plain).t())
        codes = quantise(weight_OI, factor_I)
        del weight_OI  # before codes are packed, which takes their size once more; few are read again
        made = Int8(*codes, kernel, factor_I.reciprocal())
        del codes
        self._try(made, x_NI, exact_NO)
        if self.error > FINE:
            made.twice = True
            self._try(made, x_NI, exact_NO)
        if self.error > FINE:
            self._try(Int8(*quantise(self.read()), kernel, twice=True), x_NI, exact_NO)
        self.codes = self.error <= self.limit
        if self.codes:
            assert isinstance(self._made, Int8)
            return self._made.product(x_NI)
        self._made = self.builder.laid_out(self.read())
        return exact_NO.to(x_NI.dtype)

    def _try(self, made: Int8, x_NI: Tensor, exact_NO: Tensor) -> None:
        """Keep it if it is the best one so far."""
        off_NO = made.product(x_NI.float()).sub_(exact_NO)
        lost_N = (
            torch.linalg.vector_norm(off_NO, dim=1) / torch.linalg.vector_norm(exact_NO, dim=1).clamp_min(1e-15)
        ) ** 2
        if (error := float(lost_N.mean().sqrt())) < self.error:
            self.error, self._made = error, made

    def settled(self) -> Matrix:
        """What it became."""
        assert self._made is not None
        return self._made


def _factors(x_NI: Tensor, weight_OI: Tensor) -> Tensor:
    """What the inputs are divided by, (I)."""
    squares_I = torch.zeros(weight_OI.shape[1], device=weight_OI.device)
    for some_OI in weight_OI.split(SOME):
        squares_I += some_OI.float().square().sum(0)
    weight_I = (squares_I / weight_OI.shape[0]).sqrt()
    weight_I = weight_I.clamp_min(weight_I.median() / 4).clamp_min(LEAST)
    x_I = x_NI.square().mean(0).sqrt()
    return (x_I.clamp_min(x_I.median() / 4) / weight_I).sqrt().clamp_min(LEAST)


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
