"""The decoder: tokens and positions in, hidden states out.

Shape suffixes: N tokens of this pass, H hidden, Q query heads, K key-value heads, D head size, B rows, V vocabulary.
What a layer makes is written where the layer before wrote, and residuals are added inside the matrix product;
`operations` has what is done between the products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from reason_engine.engines.embedded.model.adapters import AdapterLayers, Place
from reason_engine.engines.embedded.model.int8 import Int8
from reason_engine.engines.embedded.model.operations import Operations, operations_for
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
        self._operations: Operations | None = None
        self._rotations = self._rotation_table(min(shape.context, 4096))

    def replace_weights(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with other weights of the same shapes, by their names in the checkpoint. Raises ModelLoadError."""
        self.weights, self._operations = self._rebuild(tensors), None

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
        do = self._operations_for(tokens_N.shape[0])
        if longest > self._rotations.shape[0]:
            self._rotations = self._rotation_table(min(self.shape.context, 2 * longest))
        do.turn_by(self._rotations.index_select(0, positions_N))
        embedding, stream = self.weights.embedding, self.weights.norm.dtype
        x = embedding.index_select(0, tokens_N) if adapters is None else adapters.embed(embedding, tokens_N)
        x = x.to(stream)
        for i, layer in enumerate(self.weights.layers):
            h = do.norm(x, layer.norm_in)
            _product(h, layer.qkv, layer.qkv_bias, do.qkv)
            if adapters is not None:
                adapters.add(i, "qkv", h, do.qkv)
            _residual(x, attend(i, *do.rotate(layer.head_norm)).to(stream), layer.out, (i, "out"), adapters)
            h = do.norm(x, layer.norm_mlp)
            _product(h, layer.gate_up, None, do.gate_up)
            if adapters is not None:
                adapters.add(i, "gate_up", h, do.gate_up)
            _residual(x, do.gate(), layer.down, (i, "down"), adapters)
        return x

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """Next-token logits in fp32, (N, vocabulary)."""
        states, head = self.states(hidden_NH), self.weights.head
        return (torch.mm(states, head) if isinstance(head, Tensor) else head.product(states)).float()

    def states(self, hidden_NH: Tensor) -> Tensor:
        """Hidden states as a head sees them, normalised."""
        do = self._operations or self._operations_for(hidden_NH.shape[0])
        return do.norm(hidden_NH, self.weights.norm)

    def _operations_for(self, tokens: int) -> Operations:
        if self._operations is None or self._operations.tokens != tokens:
            self._operations = operations_for(tokens, self.shape, self.weights, self.dtype)
        return self._operations

    def _rotation_table(self, positions: int) -> Tensor:
        """exp(i m f) per position m and frequency f, (positions, 1, D / 2), complex."""
        frequencies = torch.tensor(self.shape.frequencies, dtype=torch.float64)
        angles = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies)
        scale = torch.full_like(angles, self.shape.rotary_scale)
        return torch.polar(scale, angles).to(torch.complex64).unsqueeze(1).to(self.device)


def _product(x: Tensor, matrix: Matrix, bias: Tensor | None, out: Tensor) -> None:
    """Multiply and add the bias, into `out`."""
    if isinstance(matrix, Tensor):
        if bias is None:
            torch.mm(x, matrix, out=out)
        else:
            torch.addmm(bias, x, matrix, out=out)
    elif isinstance(matrix, Int8) and x.dtype == torch.float32:
        matrix.into(x, bias, out)
    elif isinstance(matrix, Packed):
        out.copy_(matrix.rounded(x))
        if bias is not None:
            out.add_(bias)
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
        matrix.add_to(x, y)
    else:
        x.add_(matrix.rounded(y) if isinstance(matrix, Packed) else matrix.product(y))
    if adapters is not None:
        adapters.add(*place, y, x)
