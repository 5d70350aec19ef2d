"""An outcome reward model from pairs of answers.

    L = −log σ(r(x, y_w) − r(x, y_l) − m)          r: the head's value at the last token

Bradley & Terry 1952; Ouyang et al. 2022, arXiv:2203.02155, eq. 1; the margin m is Llama 2's (arXiv:2307.09288, eq. 2),
one for all pairs, 0 unless set. Departure: pairs of one prompt are not forced into one batch. `centre` adds that share
of (r_w + r_l)², which keeps values near zero (Eisenstein et al. 2023, arXiv:2312.09244) and so the verifier's sigmoid
telling. The reward is read where the verifier will read it: a model of its own at the end of the finished turn, a head
alone at the answer's last token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from reason_engine.data.formats.rows import Preference, Row, Turns
from reason_engine.errors import SetupError
from reason_engine.progress import OnProgress, silent
from reason_engine.training import trainers
from reason_engine.training.common.encode import Encoded, Encoder
from reason_engine.training.supervised.dpo import Pair
from reason_engine.training.supervised.loop import supervise
from reason_engine.training.supervised.reward_heads import (
    HeadRecipe,
    ScoredText,
    add_head,
    head_saver,
    head_values,
)


class RewardConfig(HeadRecipe):
    """Pairs of answers, the better one first."""

    kinds: ClassVar[tuple[type[Row], ...]] = (Preference,)

    margin: float = Field(0.0, ge=0)
    centre: float = Field(0.01, ge=0)


class Outcomes:
    """Compares the values of two answers."""

    kinds: ClassVar[tuple[type[Row], ...]] = (Preference,)

    def __init__(self, config: RewardConfig, model: Any, tokenizer: Any) -> None:
        self.model = add_head(config, model, "outcome", tokenizer.pad_token_id)
        self._config, self._encoder = config, Encoder(tokenizer, config.max_length)
        self._lm_head = model.get_output_embeddings()

    def encode(self, rows: Sequence[Preference]) -> list[Pair]:
        return [
            Pair(self._encode(row.prompt, row.chosen), self._encode(row.prompt, row.rejected)) for row in rows
        ]

    def total(self, batch: Sequence[Pair], body: Any) -> float:
        return len(batch)

    def loss(self, group: Sequence[Pair], body: Any) -> tuple[Any, Mapping[str, float]]:
        from torch.nn.functional import logsigmoid

        config, count = self._config, len(group)
        texts = (*(p.chosen for p in group), *(p.rejected for p in group))
        rows: list[ScoredText] = [(one.ids, [len(one.ids) - 1], _answer_start(one)) for one in texts]
        values = head_values(config, self.model, self._lm_head, body, rows)
        better, worse = values[:count], values[count:]
        losses = -logsigmoid(better - worse - config.margin) + config.centre * (better + worse) ** 2
        margins = (better - worse).detach()
        return losses.sum(), {"accuracy": float((margins > 0).sum()), "margin": float(margins.sum())}

    def _encode(self, prompt: Turns, answer: str) -> Encoded:
        whole = self._config.train == "model"
        asked = "" if whole else self._encoder.prompt(prompt)
        text = self._encoder.closed(prompt, answer) if whole else asked + answer
        ids, starts = self._encoder.tokens(text)
        if len(ids) > self._config.max_length:
            raise SetupError(
                f"an answer with its prompt has {len(ids)} tokens, above max_length {self._config.max_length}: "
                "a reward is read at its end"
            )
        return Encoded(ids, [float(start >= len(asked)) for start in starts])


def _answer_start(text: Encoded) -> int:
    """The place of its answer's first token."""
    return text.weights.index(1.0) if 1.0 in text.weights else len(text.ids)


@trainers.register("reward")
class Reward:
    """Bradley-Terry reward model."""

    config: ClassVar[type[RewardConfig]] = RewardConfig
    summary: ClassVar[str] = "an outcome reward model from pairs of answers (Bradley-Terry)"

    def train(self, config: RewardConfig, out: Path, tell: OnProgress = silent) -> dict[str, Any]:
        return supervise(config, out, tell, Outcomes, base=config.model, save=head_saver(config, "outcome"))
