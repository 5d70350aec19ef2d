"""`process-rules`: each step judged by rules and by the model's own likelihood; no second model.

Rewards for steps instead of outcomes: Uesato et al. 2022, arXiv:2211.14275, section 2; there they are learned, here
they follow from rules. A weighted sum of three measures of a step t,

    r_t = 0.3 syntax_t + 0.5 coherence_t + 0.2 fact_t,     R = product over t of r_t (or their least, or their mean)

syntax      its form (`form`)
coherence   g_t l_t: g_t is how well the numbers it computes with are grounded (`ledger`, only for questions that it
            fits), l_t is the geometric mean of the probabilities of its tokens
fact        its arithmetic, in exact rationals (`equations`); a step of prose: whether the operator's or the question's
            sources say it,  support(s) = max over passages p of |words(s) & words(p)| / |words(s)|, halved for each
            number of s that p lacks: a measure of wording, which separates an invented fact from a quoted one, not a
            true one from its negation

The weights are renormalised over the parts that can be measured: no sources and no equation, no `fact`; no
probabilities and no ledger, no `coherence`. A step with a refuted equation is not saved by its form: its sum is
multiplied by REFUTED, so that under every aggregate a path with one falls behind a path without.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from reason_engine.contracts import Call, Site
from reason_engine.steps import BLANK_LINE
from reason_engine.types import Passage, Path, Problem, Score, aggregated
from reason_engine.verifiers import verifiers
from reason_engine.verifiers.process_rules.account import account, fact
from reason_engine.verifiers.process_rules.form import fault_of_form
from reason_engine.verifiers.process_rules.ledger import Ledger, fits
from reason_engine.verifiers.process_rules.numbers import numbers
from reason_engine.verifiers.process_rules.steps import Step, steps_of
from reason_engine.verifiers.process_rules.support import look_up

REFUTED = 0.1
"""Factor of a step whose arithmetic is wrong."""

Aggregate = Literal["product", "min", "mean"]


class Weights(BaseModel, extra="forbid", frozen=True):
    """How much each part counts."""

    syntax: float = Field(default=0.3, ge=0, le=1)
    coherence: float = Field(default=0.5, ge=0, le=1)
    fact: float = Field(default=0.2, ge=0, le=1)

    @model_validator(mode="after")
    def counts(self) -> Self:
        if self.syntax + self.coherence + self.fact <= 0:
            raise ValueError("at least one weight must be above 0")
        return self


@verifiers.register("process-rules")
class ProcessRules(BaseModel):
    """Judges whole paths and single steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Weights = Field(default_factory=Weights, description="of syntax, coherence and fact")
    aggregate: Aggregate = Field(default="product", description="how the steps' scores make the path's")

    _step_end: str = PrivateAttr(BLANK_LINE)
    _marker: str | None = PrivateAttr("Answer:")

    def bind(self, site: Site) -> ProcessRules:
        """This model's ends of steps and marker of answers."""
        bound = self.model_copy()
        bound._step_end, bound._marker = site.profile.step_end, site.profile.answer_marker
        return bound

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """The aggregate over each path's steps; 0 for a path without any. `detail` names the weakest step."""
        scores: list[Score] = []
        for steps in await self._judge(problem, paths, call):
            worst = min(steps, key=lambda step: step.value, default=None)
            value = aggregated([step.value for step in steps], self.aggregate)
            scores.append(Score(value, "process-rules", worst.detail if worst else "no steps"))
        return scores

    async def score_steps(self, problem: Problem, path: Path, call: Call) -> list[Score]:
        """One score a step, those without text left out."""
        return (await self._judge(problem, [path], call))[0]

    async def _judge(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[list[Score]]:
        split = [steps_of(path, self._step_end) for path in paths]
        sources = await look_up(problem, split, call)
        judged: list[list[Score]] = []
        for steps in split:
            judged.append(self._judge_steps(problem, steps, sources))
            await asyncio.sleep(0)  # between two paths the event loop may do other work
        return judged

    def _judge_steps(
        self, problem: Problem, steps: Sequence[Step], sources: Mapping[str, Sequence[Passage]]
    ) -> list[Score]:
        """The steps in order, each with the results of those before it."""
        ledger = _ledger(problem)
        earlier: set[str] = set()
        scores: list[Score] = []
        for step in steps:
            fault = fault_of_form(step.text, earlier, self._marker)
            earlier.add(" ".join(step.text.split()))
            done = account(ledger, step.text, self._marker)
            right, reason = fact(done, step.text, sources.get(step.text))
            coherence = _coherence(done.grounded, step.likelihood)
            value = self._sum({"syntax": 0.0 if fault else 1.0, "coherence": coherence, "fact": right})
            note = fault or reason or ("a number from nowhere" if done.grounded == 0 else "")
            detail = f"{step.text[:80]}: {note}" if note else ""
            scores.append(Score(value * (REFUTED if done.refuted else 1.0), "process-rules", detail))
        return scores

    def _sum(self, parts: Mapping[str, float | None]) -> float:
        weights = self.weights.model_dump()
        known = {name: value for name, value in parts.items() if value is not None and weights[name] > 0}
        total = sum(weights[name] for name in known)
        return sum(weights[name] * value for name, value in known.items()) / total if total else 1.0


def _ledger(problem: Problem) -> Ledger | None:
    if not fits(problem):
        return None
    around = [*(turn.content for turn in problem.history), *(source.text for source in problem.sources)]
    return Ledger(tuple(numbers(problem.asked)), tuple(numbers("\n".join(around))))


def _coherence(grounded: float | None, likelihood: float | None) -> float | None:
    known = [value for value in (grounded, likelihood) if value is not None]
    return math.prod(known) if known else None
