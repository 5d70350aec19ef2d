"""Rows through a model layer by layer, so that each layer sees what the changed ones before it give, as in SparseGPT
and Wanda; and what the inputs of a layer's matrices are on them.

    gram  XᵀX, [I, I]        squares  Σ x², its diagonal, [I]        X: the inputs at all tokens of all rows

Rows of about one length are a batch, padded on the right, where a causal model never looks; what stands at the padding
counts nowhere. Where the machine computes in bf16 the layers do (`precision`), and sums are taken in fp32: a gram is of
the very numbers that the matrices multiply. A pass over a layer ends at the last input that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from reason_engine.compression.matrices import MATRICES

Precision = Literal["auto", "bf16", "fp32"]
BATCH = 4096
"""Padded tokens of a batch: fewer, and bf16 spends its time on the weights' copies."""
BLOCKS = 4
"""A gram is its own transpose: of its blocks, so many a side, those on and above the diagonal are computed."""
READERS = {
    "self_attn.k_proj": "self_attn.q_proj", "self_attn.v_proj": "self_attn.q_proj", "mlp.up_proj": "mlp.gate_proj",
}  # fmt: skip
"""Matrices that read what another one reads."""


@dataclass(slots=True)
class _Batch:
    """`states` before the next layer, [B, T, D]; `real` is True at the rows' own tokens, None where all are."""

    states: Any
    real: Any
    given: dict[str, Any]

    def tokens(self, values_BTX: Any) -> Any:
        """Those of the rows, [N, X]."""
        return values_BTX.flatten(0, 1) if self.real is None else values_BTX[self.real]


class LayerwiseRun:
    """Keeps the hidden states of all rows before the next layer."""

    def __init__(self, model: Any, rows: Sequence[Sequence[int]], precision: Precision = "auto") -> None:
        import torch

        from reason_engine.training.common.forward import fast_precision

        self._half = fast_precision(precision) == "bf16"
        self._device: Any = model.device
        self._batches: list[_Batch] = []
        model.set_attn_implementation("sdpa")  # needs no mask of its own where none is given
        with model.model.layers[0].register_forward_pre_hook(self._catch, with_kwargs=True), torch.no_grad():
            for group in batches(rows, BATCH):
                ids_BT = torch.zeros(len(group), len(group[0]), dtype=torch.long)
                for at, row in enumerate(group):
                    ids_BT[at, : len(row)] = torch.tensor(row)
                lengths_B1 = torch.tensor([[len(row)] for row in group])
                real_BT = torch.arange(ids_BT.shape[1]) < lengths_B1
                with suppress(_Reached):
                    model.model(input_ids=ids_BT.to(self._device), use_cache=False)
                self._batches[-1].real = None if bool(real_BT.all()) else real_BT.to(self._device)

    def grams(self, layer: Any, names: Sequence[str]) -> dict[str, Any]:
        """XᵀX of the layer's matrices of these names."""
        return self._sums(layer, names, self._gram)

    def squares(self, layer: Any, names: Sequence[str]) -> dict[str, Any]:
        """Σ x² of the layer's matrices of these names."""
        return self._sums(layer, names, lambda rows_NI: rows_NI.float().square().sum(0))

    def advance(self, layer: Any) -> None:
        """Go on behind the layer."""
        for batch, output in self._outputs(layer):
            batch.states = output

    def influence(self, layer: Any) -> float:
        """1 − mean cosine of what goes in and what comes out, over tokens; goes on behind the layer."""
        from torch.nn.functional import cosine_similarity

        total, count = 0.0, 0
        for batch, output in self._outputs(layer):
            cosines_N1 = batch.tokens(cosine_similarity(batch.states, output, -1)[..., None])
            total, count = total + cosines_N1.sum().item(), count + len(cosines_N1)
            batch.states = output
        return 1 - total / count

    def _sums(self, layer: Any, names: Sequence[str], of: Callable[[Any], Any]) -> dict[str, Any]:
        read = {READERS.get(name, name) for name in names}
        order, found = [name for name in MATRICES if name in read], dict[str, Any]()
        current: list[_Batch] = []

        def hook_of(name: str) -> Callable[[Any, Any], None]:
            def hook(_: Any, args: tuple[Any, ...]) -> None:
                new = of(current[0].tokens(args[0]))
                found[name] = new if name not in found else found[name].add_(new)
                if name == order[-1]:
                    raise _Reached

            return hook

        with ExitStack() as hooks:
            for name in order:
                hooks.enter_context(layer.get_submodule(name).register_forward_pre_hook(hook_of(name)))
            for batch in self._batches:
                current[:] = [batch]
                with suppress(_Reached):
                    self._through(layer, batch)
        return {name: found[READERS.get(name, name)] for name in names}

    def _gram(self, rows_NI: Any) -> Any:
        import torch

        if not self._half:
            return symmetric(rows_NI.float())
        with _short_products():
            return symmetric(rows_NI.to(torch.bfloat16).float())

    def _outputs(self, layer: Any) -> Iterator[tuple[_Batch, Any]]:
        for batch in self._batches:
            yield batch, self._through(layer, batch)

    def _through(self, layer: Any, batch: _Batch) -> Any:
        import torch

        with torch.no_grad(), torch.autocast(batch.states.device.type, torch.bfloat16, enabled=self._half):
            return layer(batch.states, **batch.given)

    def _catch(self, _: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        state = args[0] if args else given["hidden_states"]
        rest = {name: value for name, value in given.items() if name != "hidden_states"}
        self._batches.append(_Batch(state, None, rest))
        raise _Reached


def batches(rows: Sequence[Sequence[int]], tokens: int) -> list[list[Sequence[int]]]:
    """Rows of about one length together, the longest first, of at most so many padded tokens or alone."""
    found: list[list[Sequence[int]]] = []
    for row in sorted(rows, key=len, reverse=True):
        if found and (len(found[-1]) + 1) * len(found[-1][0]) <= tokens:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def symmetric(rows_NI: Any) -> Any:
    """XᵀX; the blocks under the diagonal are copied."""
    width = rows_NI.shape[1]
    gram_II = rows_NI.new_empty(width, width)
    edges = [width * at // BLOCKS for at in range(BLOCKS + 1)]
    for start, stop in pairwise(edges):
        gram_II[start:stop, start:] = rows_NI[:, start:stop].T @ rows_NI[:, start:]
        gram_II[start:, start:stop] = gram_II[start:stop, start:].T.clone()
    return gram_II


@contextmanager
def _short_products() -> Iterator[None]:
    """Products of fp32 matrices whose numbers are bf16 take bf16's instructions, and sum in fp32 as before."""
    import torch

    products: Any = torch.backends.mkldnn
    kept = products.matmul.fp32_precision
    products.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        products.matmul.fp32_precision = kept


class _Reached(Exception):
    """The rest of the model, or of the layer, is not needed."""
