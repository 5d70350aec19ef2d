"""Forward passes over padded groups: the hidden states, the answer's log-probabilities, the states at some places.

Rows are padded on the right, where a causal model never looks, so no mask is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from reason_engine.errors import SetupError
from reason_engine.training.common.encode import Encoded, padded

if TYPE_CHECKING:
    from torch import Tensor

Body = Callable[["Tensor"], "Tensor"]
"""Token ids [B, T] to hidden states [B, T, D] after the final norm."""


def body_of(model: Any, compiled: bool, precision: str = "fp32") -> Any:
    """The model's `Body`. Raises SetupError where the compiled one does not know the model."""
    if not compiled:
        return lambda ids_BT: model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
    if model.config.model_type != "qwen3":
        raise SetupError(f"compile: written for qwen3 models, this is {model.config.model_type}")
    from reason_engine.training.common.compiled import CompiledBody

    body = CompiledBody(model)
    body.check(precision)
    return body


def fast_precision(asked: str) -> str:
    """`auto` is bf16 where this machine computes in it; elsewhere bf16 is emulated, at a twentieth of fp32's speed."""
    import torch

    if asked != "auto":
        return asked
    cpu = (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )  # torch tells it here only
    return "bf16" if torch.cuda.is_available() or cpu else "fp32"


def answer_loss(body: Body, head: Any, group: Sequence[Encoded], precision: str) -> Any:
    """Weighted sum of -log p over answer tokens; logits are made at those places only."""
    from torch.nn.functional import cross_entropy

    logits_NV, targets_N, weights_N, _ = answer_logits(body, head, group, precision)
    losses_N = cross_entropy(logits_NV, targets_N, reduction="none")
    return (losses_N * weights_N).sum()


def answer_logps(body: Body, head: Any, group: Sequence[Encoded], precision: str) -> Any:
    """Sum of log p over the answer's tokens, one a row, [B]."""
    import torch
    from torch.nn.functional import cross_entropy

    logits_NV, targets_N, _, rows_N = answer_logits(body, head, group, precision)
    losses_N = cross_entropy(logits_NV, targets_N, reduction="none")
    return torch.zeros(len(group), device=losses_N.device).index_add(0, rows_N, -losses_N)


def answer_logits(body: Body, head: Any, group: Sequence[Encoded], precision: str) -> tuple[Any, ...]:
    """At the places that predict a token with a weight: logits in fp32 [N, V], targets, weights, rows [N]."""
    states_ND, *rest = answer_states(body, group, precision, head.weight.device)
    return head_logits(head, states_ND, precision), *rest


def head_logits(head: Any, states_ND: Tensor, precision: str) -> Tensor:
    """In fp32, [N, V]."""
    import torch

    with torch.autocast(states_ND.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return head(states_ND).float()


def answer_states(body: Body, group: Sequence[Encoded], precision: str, device: Any) -> tuple[Any, ...]:
    """At the places that predict a token with a weight: hidden states [N, D], targets, weights, rows [N]."""
    import torch

    ids_BT = padded_ids(group)
    length = ids_BT.shape[1]
    weights_BT = torch.tensor([one.weights + [0.0] * (length - len(one.weights)) for one in group])
    weights_BT[:, 0] = 0.0
    learned_BT = weights_BT[:, 1:] > 0
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        states_ND = body(ids_BT.to(device))[:, :-1][learned_BT.to(device)]
    rows_N = learned_BT.nonzero()[:, 0].to(device)
    targets_N = ids_BT[:, 1:][learned_BT].to(device)
    return states_ND, targets_N, weights_BT[:, 1:][learned_BT].to(device), rows_N


def place_values(
    body: Body, score: Any, rows: Sequence[tuple[list[int], Sequence[int]]], precision: str
) -> Any:
    """The head's values at each row's places, one after the other, [N]. A row is (ids, places)."""
    states_ND = place_states(body, rows, precision, next(score.parameters()).device)
    return score(states_ND.float())[:, 0]


def place_states(
    body: Body, rows: Sequence[tuple[list[int], Sequence[int]]], precision: str, device: Any
) -> Any:
    """Hidden states at each row's places, one after the other, [N, D]."""
    import torch

    ids_BT = padded_ids([Encoded(ids, []) for ids, _ in rows]).to(device)
    at = [(row, place) for row, (_, places) in enumerate(rows) for place in places]
    rows_N, places_N = (torch.tensor(column, device=device) for column in zip(*at, strict=True))
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        return body(ids_BT)[rows_N, places_N]


def padded_ids(group: Sequence[Encoded]) -> Any:
    """Token ids [B, T], zeros on the right."""
    import torch

    length = padded(max(len(one.ids) for one in group))
    return torch.tensor([one.ids + [0] * (length - len(one.ids)) for one in group])


class Reference:
    """A frozen copy of a model: π_ref."""

    def __init__(self, model: Any) -> None:
        from copy import deepcopy

        self._model = deepcopy(model).eval().requires_grad_(False)
        self._body = body_of(self._model, False)

    def logps(self, rows: Sequence[Encoded], precision: str) -> Any:
        """Sum of log p over each row's answer, [B]."""
        import torch

        with torch.no_grad():
            return answer_logps(self._body, self._model.get_output_embeddings(), rows, precision)

    def logits(self, rows: Sequence[Encoded], precision: str) -> Any:
        """At the places that predict an answer's token, [N, V]."""
        import torch

        with torch.no_grad():
            return answer_logits(self._body, self._model.get_output_embeddings(), rows, precision)[0]
