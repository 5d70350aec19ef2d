"""`reward-model`: a trained reward model that the engine serves beside the model.

    outcome   s = sigmoid(r(question, answer)), read at the answer's last token
    process   s = aggregate over steps t of sigmoid(r(question, steps up to t))

Cobbe et al. 2021, arXiv:2110.14168, section 4; Lightman et al. 2023, arXiv:2305.20050, section 2.6. The aggregate is
the one that the step model's makers use (the least step, the product, the last step) unless the request says otherwise;
Lightman et al. multiply. A path that thinks is judged by what follows its thought. A head over the served model's own
states reads each path after the prompt that it had, a separate model after the question. The engine returns raw values:
a reward, or with two labels the log-odds of the second; the sigmoid keeps their order and makes them comparable with
other verifiers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from reason_engine.contracts import Call, Site
from reason_engine.errors import CapabilityMissing, RequestError
from reason_engine.steps import BLANK_LINE, step_ends
from reason_engine.types import Aggregate, Message, Path, Problem, Score, ScoreRequest, Scores, aggregated
from reason_engine.verifiers import verifiers


@verifiers.register("reward-model")
class RewardModel(BaseModel):
    """By the operator's name for it; one that is alone needs none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, max_length=200, description="which reward model, where several are served")
    aggregate: Aggregate | None = Field(
        None, description="how steps' scores make the path's, by a process model; none: as its makers do"
    )

    _step_end: str = PrivateAttr(BLANK_LINE)
    _aggregate: Aggregate = PrivateAttr("min")

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
        bound._aggregate = self.aggregate or dict(site.caps.aggregates).get(name or "", "min")
        return bound

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """In (0, 1)."""
        rated = await self._rate(problem, paths, call)
        return [self._score(squashed(values[0])) for values in rated.values]

    async def _rate(self, problem: Problem, paths: Sequence[Path], call: Call, *, steps: bool = False) -> Scores:
        """One value a path, or one a step."""
        texts = tuple(path.solution for path in paths)
        whole = all(text == path.text for text, path in zip(texts, paths, strict=True))
        prompts = tuple(path.prompt for path in paths) if whole else ()
        request = ScoreRequest(
            "",
            texts,
            "token_reward" if steps else "reward",
            self.model,
            (*problem.history, Message("user", problem.question)),
            tuple(step_ends(text, self._step_end) for text in texts) if steps else (),
            prompts if all(prompts) else (),  # none where one was not asked of the served model, or has thought
        )
        return await call.rate(request)

    def _score(self, value: float) -> Score:
        return Score(value, "reward-model", self.model or "")


class StepRewardModel(RewardModel):
    """Served by a process model."""

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """The aggregate over each path's steps; 0 for a path without any."""
        rated = await self._rate(problem, paths, call, steps=True)
        return [self._score(aggregated([squashed(v) for v in values], self._aggregate)) for values in rated.values]

    async def score_steps(self, problem: Problem, path: Path, call: Call) -> list[Score]:
        """One score a step that is not empty."""
        (values,) = (await self._rate(problem, [path], call, steps=True)).values
        return [self._score(squashed(value)) for value in values]


def squashed(value: float) -> float:
    """The logistic function; not a number stays so."""
    return 0.0 if value <= -700 else 1 / (1 + math.exp(-value))
