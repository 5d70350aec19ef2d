"""A process reward model from solutions whose steps are labelled.

    L = mean over steps t of −[l_t log σ(r_t) + (1 − l_t) log σ(−r_t)]          r_t: the value at step t's end

Uesato et al. 2022, arXiv:2211.14275, section 2.4; Lightman et al. 2023, arXiv:2305.20050, section 2.6. Labels may be
shares in [0, 1] (as rollouts estimate them: Wang et al. 2023, arXiv:2312.08935, eq. 4). With `lm` the model also
goes on learning to write right steps (the joint objective of Cobbe et al. 2021, arXiv:2110.14168, section 4.2):

    L + lm · mean over steps of the mean over its solution's right tokens of −log p

With `each: token` every token of a step is judged by the step's label (that paper's token-level verifier): the sign of
a mistake is learned where it stands, and the value is still read at the step's end.

Departures: a value of the head instead of a token of the language model; neutral steps are whatever share the file
gives them; the tokens of wrong steps are not learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from reason_engine.data.formats.rows import Row, Stepwise
from reason_engine.errors import SetupError
from reason_engine.profile import read_profile
from reason_engine.training import trainers
from reason_engine.training.supervised.reward import HeadObjective, HeadRecipe, ScoredText, head_values


class ProcessRewardConfig(HeadRecipe):
    """Solutions in steps with a label each."""

    kinds: ClassVar[tuple[type[Row], ...]] = (Stepwise,)

    step_end: str | None = Field(
        None, min_length=1, description="What stands between steps; none: as the profile beside the model says"
    )
    each: Literal["step", "token"] = Field(
        "step", description="What is judged in training: the end of a step, or each of its tokens by its label"
    )
    lm: float = Field(0.0, ge=0, description="Weight of the language model's loss on right steps")

    @model_validator(mode="after")
    def check_lm(self) -> ProcessRewardConfig:
        if self.lm and self.train != "model":
            raise ValueError("lm: a head alone leaves the language model as it is; with train: model")
        return self


@dataclass(frozen=True, slots=True)
class LabelledSteps:
    """A solution in tokens, the places that are judged, their labels; its right steps' tokens [start, end)."""

    ids: list[int]
    places: list[int]
    labels: tuple[float, ...]
    right: tuple[int, int]


@trainers.register("process-reward")
class Processes(HeadObjective[ProcessRewardConfig]):
    """Judges each step where it ends."""

    config: ClassVar[type[ProcessRewardConfig]] = ProcessRewardConfig
    summary: ClassVar[str] = "a process reward model from solutions whose steps are labelled"
    kind = "process"

    def __init__(self, config: ProcessRewardConfig, model: Any, tokenizer: Any) -> None:
        super().__init__(config, model, tokenizer)
        self._step_end = config.step_end or read_profile(config.model).step_end

    def encode(self, rows: Sequence[Stepwise]) -> list[LabelledSteps]:
        return list(map(self._steps, rows))

    def total(self, batch: Sequence[LabelledSteps], body: Any) -> float:
        return sum(len(item.places) for item in batch)

    def loss(self, group: Sequence[LabelledSteps], body: Any) -> tuple[Any, Mapping[str, float]]:
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        device, states = next(self.model.score.parameters()).device, None
        if self._config.lm:
            values, states = self._values_and_states(group, body, device)
        else:
            rows: list[ScoredText] = [(item.ids, item.places, item.right[0]) for item in group]
            values = head_values(self._config, self.model, self._lm_head, body, rows)
        labels = torch.tensor([label for item in group for label in item.labels], device=device)
        loss = binary_cross_entropy_with_logits(values, labels, reduction="sum")
        right = ((values > 0) == (labels > 0.5)).float().split([len(item.places) for item in group])
        metrics = {"accuracy": sum(float(one.mean()) for one in right)}
        if states is not None:
            lm_loss, metrics["lm_loss"] = self._lm_loss(group, states)
            loss = loss + self._config.lm * lm_loss
        return loss, metrics

    def _values_and_states(self, group: Sequence[LabelledSteps], body: Any, device: Any) -> tuple[Any, list[Any]]:
        """The values at the places, [N], and the states that predict each item's right tokens."""
        import torch

        from reason_engine.training.common.forward import place_states

        pairs = [(item.places, range(item.right[0] - 1, item.right[1] - 1)) for item in group]
        rows = [(item.ids, [*places, *right]) for item, (places, right) in zip(group, pairs, strict=True)]
        states_ND = place_states(body, rows, self._config.precision, device)
        parts = states_ND.split([len(part) for pair in pairs for part in pair])
        return self.model.score(torch.cat(parts[::2]).float())[:, 0], list(parts[1::2])

    def _lm_loss(self, group: Sequence[LabelledSteps], states: Sequence[Any]) -> tuple[Any, float]:
        """−log p of right tokens, each solution's mean counted once a step; and the sum of the means."""
        import torch

        from reason_engine.training.kernels.logprobs import token_logprobs

        states_ND = torch.cat(list(states))
        targets = torch.tensor([t for item in group for t in item.ids[slice(*item.right)]], device=states_ND.device)
        logps = token_logprobs(self._lm_head, states_ND, targets, self._config.precision)[0]
        losses = (-logps).split([len(one) for one in states])
        means = [one.mean() if len(one) else one.sum() for one in losses]
        loss = torch.stack([mean * len(item.places) for mean, item in zip(means, group, strict=True)]).sum()
        return loss, float(sum(mean.detach() for mean in means))

    def _steps(self, row: Stepwise) -> LabelledSteps:
        mark, text = self._step_end, self._encoder.prompt(row.prompt)
        asked, ends = len(text), list[int]()
        for step in row.steps:
            body = step.removesuffix(mark)
            if mark in body:
                raise SetupError(f"a step holds the mark {mark!r} that ends one: {step[:60]!r}; set step_end")
            text += (mark if ends else "") + body
            ends.append(len(text))
        ids, starts = self._encoder.tokens(text)
        if len(ids) > self._config.max_length:
            raise SetupError(f"a solution has {len(ids)} tokens, above max_length {self._config.max_length}")
        places = [max(n for n, start in enumerate(starts) if start < end) for end in ends]
        wrong = next((n for n, label in enumerate(row.labels) if label <= 0.5), len(ends))
        first = max(1, sum(start < asked for start in starts))
        right = (first, places[wrong - 1] + 1 if wrong else first)
        if self._config.each == "step":
            return LabelledSteps(ids, places, row.labels, right)
        spans = zip(row.labels, pairwise((first - 1, *places)), strict=True)
        labels = tuple(label for label, (begin, end) in spans for _ in range(begin, end))
        return LabelledSteps(ids, list(range(first, places[-1] + 1)), labels, right)
