"""The policy as a trainer sees it: log-probabilities of tokens that were drawn, in micro-batches of similar length.

Samples of one prompt read it once: its keys and values, with their gradients, serve all of them, so that 16 samples of
a question do not cost 16 readings of it. Rows are padded on the right. Logits are made at the places of generated
tokens only. Shape suffixes: P different prompts, B rows, T places, N generated tokens of all rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from reason_engine.training._encode import padded
from reason_engine.training._forward import body_of

ALIKE = 32
"""Answers whose lengths fall into one span of this many tokens stand together, so that those of one prompt meet."""


class Sized(Protocol):
    """What a forward pass costs: the rows that an item is read by."""

    @property
    def rows(self) -> Sequence[Row]: ...


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and what was drawn after it. Place t of a row predicts token t + 1 of prompt and answer together."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def rows(self) -> Sequence[Row]:
        return (self,)


@dataclass(frozen=True, slots=True)
class Pad:
    """Rows as tensors: `ids_BT`, and for each place whether it predicts a generated token (`mask_BT`)."""

    ids_BT: Tensor
    mask_BT: Tensor

    @property
    def learned_BT(self) -> Tensor:
        return self.mask_BT > 0


def pad(rows: Sequence[Row]) -> Pad:
    """T is one less than the longest row's length, padded."""
    width = padded(max(len(row.prompt) + len(row.answer) for row in rows) - 1)
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
    for at, row in enumerate(rows):
        whole = (*row.prompt, *row.answer)[:-1]
        ids[at, : len(whole)] = torch.tensor(whole)
        mask[at, len(row.prompt) - 1 : len(whole)] = 1
    return Pad(ids, mask)


class States:
    """The states by which generated tokens are predicted, in order of the rows, (N, D)."""

    def __init__(self, model: Any, compiled: bool, precision: str) -> None:
        """`model` has a body. Raises SetupError where it cannot be compiled."""
        self._body, self._model = body_of(model, compiled, precision), model.base_model
        self._shares = not compiled and _whole_attention(model.config.to_dict())

    def __call__(self, rows: Sequence[Row], device: Any) -> Tensor:
        if self._shares and len({row.prompt for row in rows}) < len(rows):
            return self._shared(rows, device)
        batch = pad(rows)
        return self._body(batch.ids_BT.to(device))[batch.learned_BT.to(device)]

    def _shared(self, rows: Sequence[Row], device: Any) -> Tensor:
        """The prompts' pass, then one over all answers but their last tokens."""
        numbers: dict[tuple[int, ...], int] = {}
        of_B = torch.tensor([numbers.setdefault(row.prompt, len(numbers)) for row in rows], device=device)
        prompts, answers = filled(list(numbers)), filled([row.answer[:-1] for row in rows])
        read = self._model(input_ids=prompts.ids_BT.to(device), use_cache=True)
        ends_P = prompts.mask_BT.sum(1).long().to(device) - 1
        last_BD = read.last_hidden_state[torch.arange(len(numbers), device=device), ends_P][of_B]
        if not answers.ids_BT.shape[1]:
            return last_BD
        cache = read.past_key_values
        cache.batch_select_indices(of_B)
        seen_BT = torch.cat(
            [prompts.mask_BT.to(device)[of_B], torch.ones(answers.ids_BT.shape, device=device)], 1
        )
        places_BT = (ends_P[of_B] + 1)[:, None] + torch.arange(answers.ids_BT.shape[1], device=device)
        hidden_BTD = self._model(
            input_ids=answers.ids_BT.to(device),
            attention_mask=seen_BT.long(),
            position_ids=places_BT,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        whole_BTD = torch.cat([last_BD[:, None].to(hidden_BTD.dtype), hidden_BTD], 1)
        first_B1 = torch.ones(len(rows), 1)
        return whole_BTD[torch.cat([first_B1, answers.mask_BT], 1).to(device) > 0]


def filled(ids: Sequence[tuple[int, ...]]) -> Pad:
    """Token ids, and 1 where there are some."""
    width = padded(max(len(one) for one in ids))
    table, mask = torch.zeros(len(ids), width, dtype=torch.long), torch.zeros(len(ids), width)
    for at, one in enumerate(ids):
        table[at, : len(one)] = torch.tensor(one, dtype=torch.long)
        mask[at, : len(one)] = 1
    return Pad(table, mask)


class Policy:
    """A model at the temperature it is sampled at."""

    def __init__(self, model: Any, temperature: float, precision: str, compiled: bool = False) -> None:
        """Raises SetupError where a model cannot be compiled."""
        self.model, self._temperature, self._precision = model, temperature, precision
        self._states = States(model, compiled, precision)

    def logprobs(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Of every generated token in order of the rows, and the entropy at its place: (N), (N)."""
        head = self.model.lm_head
        device = head.weight.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            logits_NV = head(self._states(rows, device))
        shares_NV = (logits_NV.float() / self._temperature).log_softmax(-1)
        with torch.no_grad():
            entropy_N = -(shares_NV.exp() * shares_NV).sum(-1)
        drawn_N = torch.tensor([token for row in rows for token in row.answer], device=device)
        return shares_NV.gather(1, drawn_N[:, None])[:, 0].cpu(), entropy_N.cpu()

    def measured(self, rows: Sequence[Row], tokens: int) -> list[Tensor]:
        """Log-probabilities without gradient, one tensor a row, in passes of at most `tokens` padded tokens."""
        return in_passes(rows, tokens, lambda group: self.logprobs(group)[0])


def in_passes(rows: Sequence[Row], tokens: int, work: Callable[[Sequence[Row]], Tensor]) -> list[Tensor]:
    """What `work` says of the generated tokens of some rows, without gradient: one tensor a row, in their order."""
    found: list[Tensor] = [torch.zeros(0)] * len(rows)
    with torch.no_grad():
        for places in micro(rows, tokens):
            group = [rows[place] for place in places]
            parts = work(group).split([len(row.answer) for row in group])
            for place, part in zip(places, parts, strict=True):
                found[place] = part
    return found


def micro(items: Sequence[Sized], tokens: int) -> list[list[int]]:
    """Numbers of the items in groups of similar answers and like prompts, of at most `tokens` padded tokens (a longer
    item stands alone)."""

    def longest(item: Sized) -> int:
        return max(len(row.answer) for row in item.rows)

    order = sorted(
        range(len(items)),
        key=lambda i: (-(longest(items[i]) // ALIKE), items[i].rows[0].prompt, -longest(items[i]), i),
    )
    groups: list[list[int]] = []
    for place in order:
        if groups and cost([items[i] for i in (*groups[-1], place)]) <= tokens:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def cost(items: Sequence[Sized]) -> int:
    """Padded tokens of one pass over these items."""
    rows = [row for item in items for row in item.rows]
    prompts = {row.prompt for row in rows}
    return len(prompts) * padded(max(map(len, prompts))) + len(rows) * padded(
        max(len(r.answer) for r in rows)
    )


def _whole_attention(config: dict[str, Any]) -> bool:
    """Whether every place sees all before it: a window would be counted over the padding after a prompt."""
    kinds = config.get("layer_types")
    return all(kind == "full_attention" for kind in kinds) if kinds else not config.get("sliding_window")
