"""A process reward model from solutions whose steps are labelled.

    L = mean over steps t of −[l_t log σ(r_t) + (1 − l_t) log σ(−r_t)]          r_t: the value at step t's end

Uesato et al. 2022, arXiv:2211.14275, section 2.4; Lightman et al. 2023, arXiv:2305.20050, section 2.6. Labels may be
shares in [0, 1] (as rollouts estimate them: Wang et al. 2023, arXiv:2312.08935, eq. 4). Departures: a value of the head
instead of a token of the language model; neutral steps are whatever share the file gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from reason_engine.data.rows import Row, Stepwise
from reason_engine.errors import SetupError
from reason_engine.training import trainers
from reason_engine.training._heads import Headed, saver, with_head
from reason_engine.training._loop import supervise
from reason_engine.training.callbacks import Tell, silent


class ProcessRewardConfig(Headed):
    """Solutions in steps with a label each."""

    kinds: ClassVar[tuple[type[Row], ...]] = (Stepwise,)

    step_end: str = Field(
        "\n", min_length=1, description="What stands between steps: the served profile's step_end"
    )


@dataclass(frozen=True, slots=True)
class Steps:
    """A solution in tokens, the places where its steps end, their labels."""

    ids: list[int]
    places: list[int]
    labels: tuple[float, ...]


class Processes:
    """Judges each step where it ends."""

    kinds: ClassVar[tuple[type[Row], ...]] = (Stepwise,)

    def __init__(self, config: ProcessRewardConfig, model: Any, tokenizer: Any) -> None:
        from reason_engine.training._encode import Encoder

        self.model = with_head(config, model, "process", tokenizer.pad_token_id)
        self._config, self._encoder = config, Encoder(tokenizer, config.max_length)

    def encode(self, rows: Sequence[Stepwise]) -> list[Steps]:
        return [self._steps(row) for row in rows]

    def total(self, batch: Sequence[Steps], body: Any) -> float:
        return sum(len(item.places) for item in batch)

    def loss(self, group: Sequence[Steps], body: Any) -> tuple[Any, Mapping[str, float]]:
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        from reason_engine.training._forward import place_values

        rows = [(item.ids, item.places) for item in group]
        values = place_values(body, self.model.score, rows, self._config.precision)
        labels = torch.tensor([label for item in group for label in item.labels], device=values.device)
        losses = binary_cross_entropy_with_logits(values, labels, reduction="none")
        right, seen = (values > 0) == (labels > 0.5), 0
        share = 0.0
        for item in group:
            share += float(right[seen : seen + len(item.places)].float().mean())
            seen += len(item.places)
        return losses.sum(), {"accuracy": share}

    def _steps(self, row: Stepwise) -> Steps:
        mark = self._config.step_end
        text = self._encoder.prompt(row.prompt)
        ends: list[int] = []
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
        return Steps(ids, places, row.labels)


@trainers.register("process-reward")
class ProcessReward:
    """Reward model of steps."""

    config: ClassVar[type[ProcessRewardConfig]] = ProcessRewardConfig
    summary: ClassVar[str] = "a process reward model from solutions whose steps are labelled"

    def train(self, config: ProcessRewardConfig, out: Path, tell: Tell = silent) -> dict[str, Any]:
        """Train until `config.tokens`; goes on from the checkpoint in `out` where there is one. The last metrics."""
        return supervise(config, out, tell, Processes, base=config.model, save=saver(config, "process"))
