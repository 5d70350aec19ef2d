"""`reward-model`: a trained reward model that the engine serves beside the model.

    outcome   s = sigmoid(r(question, answer)), read at the answer's last token
    process   s = fold over steps t of sigmoid(r(question, steps up to t))

Cobbe et al. 2021, arXiv:2110.14168, section 4; Lightman et al. 2023, arXiv:2305.20050, section 2.6. `fold` is the least
step unless the request says otherwise; Lightman et al. multiply. A head over the served model's own states reads each
path after the prompt that it had, a model of its own after the question. The engine returns raw values: a reward, or
with two labels the log-odds of the second; the sigmoid keeps their order and makes them comparable with other
verifiers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from reason_engine.contracts import Call, Site
from reason_engine.errors import CapabilityMissing, RequestError
from reason_engine.types import Message, Path, Problem, Score, Scores
from reason_engine.verifiers import verifiers

Fold = Literal["min", "product", "mean", "last"]


@verifiers.register("reward-model")
class RewardModel(BaseModel):
    """By the operator's name for it; one that is alone needs none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(
        None, max_length=200, description="which reward model, where several are served"
    )
    aggregate: Fold = Field("min", description="how steps' scores make the path's, by a process model")

    _step_end: str = PrivateAttr("\n")

    def bind(self, site: Site) -> RewardModel:
        """For the kind of model that is served under the name. Raises CapabilityMissing where there is none."""
        kinds, field = dict(site.caps.rewards), f"{site.field}.params.model"
        if not site.caps.score:
            raise CapabilityMissing(
                "the verifier 'reward-model' needs a reward model, and this server has none; serve one beside the "
                "model with --reward-model NAME=PATH, or NAME=URL of an endpoint with vLLM's pooling API",
                param=site.field,
                code="capability_missing",
            )
        if kinds and self.model not in kinds and not (self.model is None and len(kinds) == 1):
            asked = "which reward model?" if self.model is None else f"no reward model named {self.model!r};"
            raise RequestError(f"{asked} one of: {', '.join(kinds)}", param=field)
        name = self.model if self.model is not None else next(iter(kinds), None)
        kind = StepRewardModel if kinds.get(name or "") == "process" else RewardModel
        bound = kind.model_construct(model=name, aggregate=self.aggregate)
        bound._step_end = site.profile.step_end
        return bound

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """In (0, 1)."""
        turns = (*problem.history, Message("user", problem.question))
        texts = [path.text for path in paths]
        rated = await call.rate(texts, model=self.model, turns=turns, prompts=_prompts(paths))
        return [Score(squashed(values[0]), "reward-model", self.model or "") for values in rated.values]


class StepRewardModel(RewardModel):
    """Served by a process model."""

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """The fold over each path's steps; 0 for a path without any."""
        rated = await self._rate(problem, paths, call)
        fold = _FOLDS[self.aggregate]
        return [
            Score(fold([squashed(v) for v in values]) if values else 0.0, "reward-model", self.model or "")
            for values in rated.values
        ]

    async def score_steps(self, problem: Problem, path: Path, call: Call) -> list[Score]:
        """One score a step that is not empty."""
        (values,) = (await self._rate(problem, [path], call)).values
        return [Score(squashed(value), "reward-model", self.model or "") for value in values]

    async def _rate(self, problem: Problem, paths: Sequence[Path], call: Call) -> Scores:
        turns = (*problem.history, Message("user", problem.question))
        ends = [step_ends(path.text, self._step_end) for path in paths]
        texts = [path.text for path in paths]
        return await call.rate(
            texts, task="token_reward", model=self.model, turns=turns, ends=ends, prompts=_prompts(paths)
        )


def _prompts(paths: Sequence[Path]) -> Sequence[str]:
    """As the paths had them; none where one was not asked for by the served model."""
    found = [path.prompt for path in paths]
    return found if all(found) else ()


def step_ends(text: str, end: str) -> tuple[int, ...]:
    """Where each step that is not empty ends, its mark not included."""
    found, at = list[int](), 0
    for piece in text.split(end):
        if piece.strip():
            found.append(at + len(piece))
        at += len(piece) + len(end)
    return tuple(found)


def squashed(value: float) -> float:
    """The logistic function; not a number stays so."""
    if math.isnan(value):
        return value
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0


_FOLDS: Mapping[Fold, Callable[[Sequence[float]], float]] = {
    "min": min,
    "product": math.prod,
    "mean": lambda values: sum(values) / len(values),
    "last": lambda values: values[-1],
}
