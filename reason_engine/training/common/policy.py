"""The policy as a trainer sees it, what its samples are worth, and the critic of PPO.

`Policy` gives log-probabilities of drawn tokens, in micro-batches of similar length. Samples of one prompt read it
once: its keys and values, with their gradients, serve all of them, so that 16 samples of a question do not cost 16
readings of it. Rows are padded on the right. Logits are made at the places of generated tokens only.

The advantages and losses are the pure mathematics of policy gradients: differentiable where that has a meaning, and
nothing is drawn. `Value` is the critic: what an answer that stands so far will be worth, one number a place.

Shape suffixes: P prompts, G samples of each, B = P G rows, T places (place t holds the token that position t predicts),
N generated tokens of all rows, D hidden size, V vocabulary. `mask_BT` is 1 on generated tokens and 0 on prompt and
padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from reason_engine.training.common.encode import LearnedItem, Rollout, padded
from reason_engine.training.common.forward import body_of

ALIKE = 32
"""Answers whose lengths fall into one span of this many tokens stand together, so that those of one prompt meet."""


class Padded(NamedTuple):
    """Rows as tensors: `ids_BT`, and for each place whether it counts (`mask_BT`)."""

    ids_BT: Tensor
    mask_BT: Tensor


def pad(rows: Sequence[Rollout]) -> Padded:
    """The places that predict a generated token count. T is one less than the longest row's length, padded."""
    batch = pad_ids([(*row.prompt, *row.answer)[:-1] for row in rows])
    for mask_T, row in zip(batch.mask_BT, rows, strict=True):
        mask_T[: len(row.prompt) - 1] = 0
    return batch


class States:
    """The states by which generated tokens are predicted, in order of the rows, (N, D)."""

    def __init__(self, model: Any, compiled: bool, precision: str) -> None:
        """`model` has a body. Raises SetupError where it cannot be compiled."""
        self._body, self._model = body_of(model, compiled, precision), model.base_model
        self._shares = not compiled and attends_to_all(model.config.to_dict())

    def __call__(self, rows: Sequence[Rollout], device: Any) -> Tensor:
        if self._shares and len({row.prompt for row in rows}) < len(rows):
            return self._shared(rows, device)
        ids_BT, mask_BT = pad(rows)
        return self._body(ids_BT.to(device))[mask_BT.to(device) > 0]

    def _shared(self, rows: Sequence[Rollout], device: Any) -> Tensor:
        """The prompts' pass, then one over all answers but their last tokens."""
        numbers: dict[tuple[int, ...], int] = {}
        of_B = torch.tensor([numbers.setdefault(row.prompt, len(numbers)) for row in rows], device=device)
        prompts, answers = pad_ids(list(numbers)), pad_ids([row.answer[:-1] for row in rows])
        read = self._model(input_ids=prompts.ids_BT.to(device), use_cache=True)
        ends_P = prompts.mask_BT.sum(1).long().to(device) - 1
        last_BD = read.last_hidden_state[torch.arange(len(numbers), device=device), ends_P][of_B]
        if not answers.ids_BT.shape[1]:
            return last_BD
        cache = read.past_key_values
        cache.batch_select_indices(of_B)
        seen_BT = torch.cat([prompts.mask_BT.to(device)[of_B], torch.ones(answers.ids_BT.shape, device=device)], 1)
        places_BT = (ends_P[of_B] + 1)[:, None] + torch.arange(answers.ids_BT.shape[1], device=device)
        hidden_BTD = self._model(
            input_ids=answers.ids_BT.to(device), attention_mask=seen_BT.long(), position_ids=places_BT,
            past_key_values=cache, use_cache=True,
        ).last_hidden_state  # fmt: skip
        whole_BTD = torch.cat([last_BD[:, None].to(hidden_BTD.dtype), hidden_BTD], 1)
        first_B1 = torch.ones(len(rows), 1)
        return whole_BTD[torch.cat([first_B1, answers.mask_BT], 1).to(device) > 0]


def pad_ids(ids: Sequence[tuple[int, ...]]) -> Padded:
    """Token ids, and 1 where there are some."""
    width = padded(max(len(one) for one in ids))
    table, mask = torch.zeros(len(ids), width, dtype=torch.long), torch.zeros(len(ids), width)
    for at, one in enumerate(ids):
        table[at, : len(one)] = torch.tensor(one, dtype=torch.long)
        mask[at, : len(one)] = 1
    return Padded(table, mask)


class Policy:
    """A model at the temperature it is sampled at."""

    def __init__(self, model: Any, temperature: float, precision: str, compiled: bool = False) -> None:
        """Raises SetupError where a model cannot be compiled."""
        self.model, self._temperature, self._precision = model, temperature, precision
        self._states = States(model, compiled, precision)

    def logprobs(self, rows: Sequence[Rollout]) -> tuple[Tensor, Tensor]:
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

    def measure(self, rows: Sequence[Rollout], tokens: int) -> list[Tensor]:
        """Log-probabilities without gradient, one tensor a row, in passes of at most `tokens` padded tokens."""
        return measure_in_passes(rows, tokens, lambda group: self.logprobs(group)[0])

    def measure_sums(self, rows: Sequence[Rollout], tokens: int) -> list[float]:
        """Log-probability of each whole answer, likewise."""
        return [values.sum().item() for values in self.measure(rows, tokens)]


def measure_in_passes(
    rows: Sequence[Rollout], tokens: int, work: Callable[[Sequence[Rollout]], Tensor]
) -> list[Tensor]:
    """`work`'s values of the generated tokens of all rows, without gradient: one tensor a row, in their order."""
    found: list[Tensor] = [torch.zeros(0)] * len(rows)
    with torch.no_grad():
        for places in micro_batch_indices(rows, tokens):
            group = [rows[place] for place in places]
            parts = work(group).split([len(row.answer) for row in group])
            for place, part in zip(places, parts, strict=True):
                found[place] = part
    return found


def micro_batch_indices(items: Sequence[LearnedItem], tokens: int) -> list[list[int]]:
    """Numbers of the items in groups of similar answers and like prompts, of at most `tokens` padded tokens (a longer
    item stands alone)."""

    def rank(place: int) -> tuple[Any, ...]:
        rows = items[place].rollouts
        longest = max(len(row.answer) for row in rows)
        return -(longest // ALIKE), rows[0].prompt, -longest, place

    groups: list[list[int]] = []
    for place in sorted(range(len(items)), key=rank):
        if groups and padded_tokens([items[i] for i in (*groups[-1], place)]) <= tokens:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def padded_tokens(items: Sequence[LearnedItem]) -> int:
    """Padded tokens of one pass over these items."""
    rows = [row for item in items for row in item.rollouts]
    prompts = {row.prompt for row in rows}
    return len(prompts) * padded(max(map(len, prompts))) + len(rows) * padded(max(len(r.answer) for r in rows))


def attends_to_all(config: dict[str, Any]) -> bool:
    """Whether every place sees all before it: a window would be counted over the padding after a prompt."""
    kinds = config.get("layer_types")
    return all(kind == "full_attention" for kind in kinds) if kinds else not config.get("sliding_window")


EPSILON = 1e-4
"""Added to a standard deviation, so that a group that differs by rounding alone is not blown up."""

Scale = Literal["group", "batch", "none"]
Over = Literal["token", "sequence", "constant"]


def group_advantages(rewards_PG: Tensor, scale: Scale) -> Tensor:
    """A_i = (r_i - mean(r)) / std: by the group's own deviation (GRPO, arXiv:2402.03300, eq. 3-4), by that of all
    rewards of the batch (arXiv:2508.08221, section 4.2), or not divided at all (Dr. GRPO, arXiv:2503.20783)."""
    centred_PG = rewards_PG - rewards_PG.mean(1, keepdim=True)
    if scale == "none":
        return centred_PG
    spread = _deviation(rewards_PG.flatten()) if scale == "batch" else rewards_PG.std(1, keepdim=True)
    return centred_PG / (spread + EPSILON)


def leave_one_out(rewards_PG: Tensor) -> Tensor:
    """A_i = r_i - mean of the other rewards of its group (RLOO, arXiv:2402.14740, section 4.2)."""
    count = rewards_PG.shape[1]
    return (rewards_PG - rewards_PG.mean(1, keepdim=True)) * count / (count - 1)


def process_advantages(steps: Sequence[Sequence[Sequence[tuple[int, float]]]], length: int, scale: Scale) -> Tensor:
    """A_it = sum of the normalised rewards of the steps of sample i that end at t or later (arXiv:2402.03300, 4.1.3).

    `steps[p][g]` are (place of the step's last token, reward). Rewards are normalised over all steps of their group;
    the batch's deviation is over all steps of all groups. (B, T).
    """
    flat = [torch.tensor([reward for one in group for _, reward in one]) for group in steps]
    whole = torch.cat(flat) if flat else torch.zeros(0)
    rows: list[Tensor] = []
    for group, pooled in zip(steps, flat, strict=True):
        spread = _deviation(pooled if scale == "group" else whole) + EPSILON if scale != "none" else 1.0
        mean = pooled.mean() if len(pooled) else 0.0
        for one in group:
            rewards_T = torch.zeros(length)
            for place, reward in one:
                rewards_T[place] += (reward - mean) / spread
            rows.append(rewards_T.flip(0).cumsum(0).flip(0))
    return torch.stack(rows)


def gae(rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gamma: float, decay: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns (B, T), 0 off the mask; after the last token the value is 0.

        delta_t = r_t + gamma V_t+1 - V_t,    A_t = delta_t + gamma lambda A_t+1,    R_t = A_t + V_t

    Generalised advantage estimation (Schulman et al. 2015, arXiv:1506.02438, eq. 16). The mask is one run a row.
    """
    values_BT = values_BT * mask_BT
    advantages_BT = torch.zeros_like(rewards_BT)
    next_value = next_advantage = torch.zeros_like(rewards_BT[:, 0])
    for t in reversed(range(rewards_BT.shape[1])):
        delta = rewards_BT[:, t] + gamma * next_value - values_BT[:, t]
        next_advantage = (delta + gamma * decay * next_advantage) * mask_BT[:, t]
        advantages_BT[:, t], next_value = next_advantage, values_BT[:, t]
    return advantages_BT, advantages_BT + values_BT


def whiten(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """To mean 0 and deviation 1 over the mask; 0 off it."""
    count = mask_BT.sum().clamp(min=1)
    centred_BT = (values_BT - (values_BT * mask_BT).sum() / count) * mask_BT
    return centred_BT / ((centred_BT**2).sum() / count + EPSILON**2).sqrt()


def clipped_policy_loss(
    logprobs: Tensor, old: Tensor, advantages: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """(loss, 1 where the clip took the gradient away), of any one shape.

        -min(rho A, clip(rho, 1 - low, 1 + high) A),    rho = exp(log pi - log pi_old)

    PPO (Schulman et al. 2017, arXiv:1707.06347, eq. 7); two bounds as in DAPO (arXiv:2503.14476, section 3.1).
    """
    ratio = (logprobs - old).exp()
    plain, bounded = ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages
    return -torch.minimum(plain, bounded), (bounded < plain).float()


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """max((V - R)^2, (V_old + clip(V - V_old) - R)^2) / 2: a value moves no further than `clip` in one batch."""
    near = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)


def kl_k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(pi | reference) from tokens of pi: q - 1 - log q, q = p_ref / p; unbiased, never negative (Schulman 2020)."""
    log_ratio = reference - logprobs
    return log_ratio.exp() - 1 - log_ratio


def token_weight(length: int, whole: Sequence[int], over: Over, most: int) -> float:
    """The weight of each token of an answer in the loss over answers of the lengths `whole`, where 0 does not count.

    `token`: all tokens alike (DAPO); `sequence`: answers alike, tokens alike within one (GRPO); `constant`: 1 in
    answers times `most`, so that a long answer neither gains nor loses (Dr. GRPO).
    """
    if not length:
        return 0.0
    if over == "sequence":
        return 1 / sum(one > 0 for one in whole) / length
    return 1 / sum(whole) if over == "token" else 1 / len(whole) / most


def _deviation(values_N: Tensor) -> Tensor:
    return values_N.std() if len(values_N) > 1 else torch.zeros(())


class Value(nn.Module):
    """The critic: a body that starts as a copy of a language model's, with a linear head that starts at zero."""

    def __init__(self, model: Any, precision: str) -> None:
        super().__init__()
        self.body = deepcopy(model.model).requires_grad_(True).train()
        self._states = States(self.body, False, precision)
        self.head = nn.Linear(model.config.hidden_size, 1).to(model.lm_head.weight.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._precision = precision

    def forward(self, rows: Sequence[Rollout]) -> Tensor:
        """Before each generated token, in order of the rows, (N)."""
        device = self.head.weight.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            states_ND = self._states(rows, device)
        return self.head(states_ND.float())[:, 0].cpu()

    def measure(self, rows: Sequence[Rollout], tokens: int) -> list[Tensor]:
        """Without gradient, one tensor a row, in passes of at most `tokens` padded tokens."""
        return measure_in_passes(rows, tokens, self)
