"""The policy as a trainer sees it, in micro-batches, and the critic of PPO.

`Policy` gives log-probabilities of drawn tokens. Samples of one prompt read it once: its keys and values, with their
gradients, serve all of them, so that 16 samples of a question do not cost 16 readings of it. Rows are packed without
padding where the model can (`packing`), and the vocabulary is gone over in chunks (`logprobs`). `Value` is the critic:
what an answer that stands so far will be worth, one number a place.

Shape suffixes: N generated tokens of all rows, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reason_engine.training.common.encode import LearnedItem, Rollout, padded
from reason_engine.training.common.forward import body_of, shared, work_out_again
from reason_engine.training.kernels.logprobs import token_logprobs
from reason_engine.training.kernels.packing import Body

if TYPE_CHECKING:
    from reason_engine.training.online.recipe import Online

ALIKE = 32
"""Answers whose lengths fall into one span of this many tokens stand together, so that those of one prompt meet."""


def answer_states(body: Body, rows: Sequence[Rollout], device: Any, precision: str) -> Tensor:
    """The states by which generated tokens are predicted, in order of the rows, (N, D)."""
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        return body.after([row.prompt for row in rows], [row.answer for row in rows], device)


class Policy:
    """A model at the temperature it is sampled at."""

    def __init__(
        self, model: Any, temperature: float, precision: str, compiled: bool = False, body: Body | None = None
    ) -> None:
        """`body`: how the model reads, where not by itself. Raises SetupError where a model cannot be compiled."""
        self.model, self._temperature, self._precision = model, temperature, precision
        self._body = body or body_of(model, compiled, precision)

    def logprobs(self, rows: Sequence[Rollout], *, entropy: bool = True) -> tuple[Tensor, Tensor]:
        """Of every generated token in order of the rows, and the entropy at its place (zeros unless asked for)."""
        head = self.model.get_output_embeddings()
        device = head.weight.device
        states_ND = answer_states(self._body, rows, device, self._precision)
        drawn_N = torch.tensor([token for row in rows for token in row.answer], device=device)
        found = token_logprobs(head, states_ND, drawn_N, self._precision, self._temperature, entropy=entropy)
        return found[0].cpu(), found[1].cpu()

    def measure(self, rows: Sequence[Rollout], tokens: int) -> list[Tensor]:
        """Log-probabilities without gradient, one tensor a row, in passes of at most `tokens` tokens."""
        return measure_in_passes(rows, tokens, lambda group: self.logprobs(group, entropy=False)[0], packed=self.packs)

    @property
    def packs(self) -> bool:
        """Whether rows are read without padding."""
        return self._body.packs

    def measure_sums(self, rows: Sequence[Rollout], tokens: int) -> list[float]:
        """Log-probability of each whole answer, likewise."""
        return [values.sum().item() for values in self.measure(rows, tokens)]


def measure_in_passes(
    rows: Sequence[Rollout], tokens: int, work: Callable[[Sequence[Rollout]], Tensor], *, packed: bool
) -> list[Tensor]:
    """`work`'s values of the generated tokens of all rows, without gradient: one tensor a row, in their order."""
    found: list[Tensor] = [torch.zeros(0)] * len(rows)
    with torch.no_grad():
        for places in micro_batch_indices(rows, tokens, packed=packed):
            group = [rows[place] for place in places]
            parts = work(group).split([len(row.answer) for row in group])
            for place, part in zip(places, parts, strict=True):
                found[place] = part
    return found


def micro_batch_indices(items: Sequence[LearnedItem], tokens: int, *, packed: bool = True) -> list[list[int]]:
    """Numbers of the items in groups of at most `tokens` tokens (a longer item stands alone): those of one prompt
    together; where rows are padded also those of similar length."""
    first: dict[tuple[int, ...], int] = {}

    def rank(place: int) -> tuple[int, ...]:
        rows = items[place].rollouts
        prompt, longest = first.setdefault(rows[0].prompt, len(first)), max(len(row.answer) for row in rows)
        return (prompt, place) if packed else (-(longest // ALIKE), prompt, -longest, place)

    groups: list[list[int]] = []
    for place in sorted(range(len(items)), key=rank):
        if groups and pass_tokens([items[i] for i in (*groups[-1], place)], packed=packed) <= tokens:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def pass_tokens(items: Sequence[LearnedItem], *, packed: bool = True) -> int:
    """Tokens of one pass over these items, padding included where rows are padded."""
    rows = [row for item in items for row in item.rollouts]
    if not packed:
        return len(rows) * padded(max(len(row.prompt) + len(row.answer) for row in rows))
    return sum(map(len, {row.prompt for row in rows})) + sum(len(row.answer) for row in rows)


class Value(nn.Module):
    """The critic: a body with a linear head that starts at zero."""

    def __init__(self, module: nn.Module, body: Body, hidden: int, precision: str) -> None:
        """`module` holds the weights that `body` reads by."""
        super().__init__()
        self.module, self._body, self._precision = module, body, precision
        self.head = nn.Linear(hidden, 1).to(next(module.parameters()).device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, rows: Sequence[Rollout]) -> Tensor:
        """Before each generated token, in order of the rows, (N)."""
        states_ND = answer_states(self._body, rows, self.head.weight.device, self._precision)
        return self.head(states_ND.float())[:, 0].cpu()

    def measure(self, rows: Sequence[Rollout], tokens: int) -> list[Tensor]:
        """Without gradient, one tensor a row, in passes of at most `tokens` tokens."""
        return measure_in_passes(rows, tokens, self, packed=self._body.packs)


def value_of(model: Any, config: Online) -> Value:
    """A critic that starts as this language model: a copy that learns whole, or the same weights with an adapter of its
    own."""
    precision = config.precision
    if config.peft is None:
        module = deepcopy(model.base_model).requires_grad_(True)
        if config.checkpointing:
            work_out_again(module)
        return Value(module, body_of(module, False, precision), model.config.hidden_size, precision)
    from reason_engine.training.common.adapters import Adapted

    copied = shared(model)
    adapted = Adapted(copied, config.peft, config.model)
    if config.checkpointing:
        work_out_again(copied)
    return Value(adapted.module, adapted.body(precision), model.config.hidden_size, precision)
