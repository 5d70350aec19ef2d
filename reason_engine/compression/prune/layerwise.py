"""A model walked through layer by layer on calibration rows, each layer seeing what the changed ones before it give.

As SparseGPT and Wanda prune: a layer's statistics are taken on the outputs of layers that are pruned already. A row is
a batch of its own, so nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Walk:
    """Hidden states of every row at the place reached, [1, T, D] each."""

    def __init__(self, model: Any, rows: Sequence[Sequence[int]]) -> None:
        import torch

        model.set_attn_implementation("sdpa")  # needs no mask of its own for one row
        self._states: list[Any] = []
        self._given: list[dict[str, Any]] = []
        self._positions: dict[int, dict[str, Any]] = {}
        first, device = model.model.layers[0], model.device
        hook = first.register_forward_pre_hook(self._catch, with_kwargs=True)
        try:
            for row in rows:
                try:
                    with torch.no_grad():
                        model.model(input_ids=torch.tensor([row], device=device), use_cache=False)
                except _Reached:
                    continue
        finally:
            hook.remove()

    def grams(self, layer: Any, names: Sequence[str]) -> dict[str, Any]:
        """XᵀX of the inputs of the layer's linear modules of these names, [I, I] each."""
        found: dict[str, Any] = {}
        hooks = [layer.get_submodule(name).register_forward_pre_hook(_add(found, name)) for name in names]
        try:
            for _ in self._outputs(layer):
                pass
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def step(self, layer: Any) -> None:
        """Go on behind the layer."""
        self._states = list(self._outputs(layer))

    def influence(self, layer: Any) -> float:
        """1 − mean cosine of what goes in and what comes out, over tokens; goes on behind the layer."""
        from torch.nn.functional import cosine_similarity

        total, count, after = 0.0, 0, []
        for before, output in zip(self._states, self._outputs(layer), strict=True):
            total += cosine_similarity(before, output, -1).sum().item()
            count += before.shape[1]
            after.append(output)
        self._states = after
        return 1 - total / count

    def _outputs(self, layer: Any) -> Any:
        import torch

        with torch.no_grad():
            for state, given in zip(self._states, self._given, strict=True):
                yield layer(state, **given)

    def _catch(self, _: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        state = args[0] if args else given["hidden_states"]
        rest = {name: value for name, value in given.items() if name != "hidden_states"}
        self._states.append(state)
        self._given.append(
            self._positions.setdefault(state.shape[1], rest)
        )  # the same for rows of one length
        raise _Reached


class _Reached(Exception):
    """The first layer has been reached; the rest of the model is not needed."""


def _add(found: dict[str, Any], name: str) -> Any:
    def hook(_: Any, args: tuple[Any, ...]) -> None:
        rows_NI = args[0].reshape(-1, args[0].shape[-1]).float()
        gram_II = rows_NI.T @ rows_NI
        found[name] = gram_II if name not in found else found[name] + gram_II

    return hook
