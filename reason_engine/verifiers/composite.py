"""`composite`: several experts judge, and their weighted mean counts.

    s_i = sum_e w_e s_ei / sum_e w_e,      w_e = (1 - d) easy_e + d hard_e where both are given, else weight_e

The mixture of experts with gates that depend on the input (Jacobs et al. 1991, Neural Computation 3, section 1), its
gate reduced to one number, the question's difficulty d in [0, 1]: the disagreement of the paths, 1 - (votes of the
most frequent answer) / (all votes), or the length of the question. An expert that fails on a path is left out there.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from reason_engine.contracts import Call, ProcessVerifier, ReadsAlternatives, Site, Verifier
from reason_engine.errors import BudgetExhausted, EngineError, RequestError, VerifierError
from reason_engine.types import Path, Problem, Score
from reason_engine.verifiers import verifiers

LONG = 120  # words of a question that count as the hardest, by `length`
Result = TypeVar("Result")


class Expert(BaseModel, extra="forbid", frozen=True):
    """A verifier with its params and weight; `easy` and `hard` together make the weight depend on difficulty."""

    name: str
    params: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    weight: float = Field(default=1.0, ge=0, le=1000, allow_inf_nan=False)
    easy: float | None = Field(default=None, ge=0, le=1000, allow_inf_nan=False)
    hard: float | None = Field(default=None, ge=0, le=1000, allow_inf_nan=False)

    @model_validator(mode="after")
    def whole(self) -> Self:
        if (self.easy is None) != (self.hard is None):
            raise ValueError("easy and hard go together")
        return self

    def weight_at(self, difficulty: float) -> float:
        """Its weight at this difficulty."""
        easy, hard = self.easy, self.hard
        return self.weight if easy is None or hard is None else (1 - difficulty) * easy + difficulty * hard


@verifiers.register("composite")
class Composite(BaseModel):
    """Experts by name; each one's tokens are accounted under its own name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    experts: tuple[Expert, ...] = Field(min_length=1, max_length=8, description="who judges")
    difficulty: Literal["disagreement", "length"] = Field(
        "disagreement", description="what weights with easy and hard go by"
    )

    _judges: tuple[Verifier, ...] = PrivateAttr(())

    @property
    def alternatives(self) -> int:
        """As many as the most demanding expert reads."""
        return max((j.alternatives for j in self._judges if isinstance(j, ReadsAlternatives)), default=0)

    def bind(self, site: Site) -> Composite:
        """With its experts built for the same place. Raises what that raises, RequestError for a nested composite."""
        built: list[Verifier] = []
        for number, expert in enumerate(self.experts):
            where = f"{site.field}.params.experts.{number}"
            if expert.name == "composite":
                raise RequestError("a composite's expert may not be a composite", param=f"{where}.name")
            built.append(site.build(expert.name, expert.params, where))
        kind = StepComposite if any(isinstance(judge, ProcessVerifier) for judge in built) else Composite
        made = kind.model_construct(**dict(self))
        made._judges = tuple(built)
        return made

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """The weighted mean over the experts that judged a path; not a number where none did."""
        judged = await self._ask(lambda judge, own: judge.score(problem, paths, own), call)
        return self._means(judged, len(paths), self._difficulty(problem, paths))

    def _means(self, judged: Sequence[Sequence[Score] | None], count: int, difficulty: float) -> list[Score]:
        """The weighted mean at each of `count` places over the experts that have a finite score there."""
        weights, means = [expert.weight_at(difficulty) for expert in self.experts], list[Score]()
        for place in range(count):
            known = [
                (scores[place].value, weight, expert.name)
                for scores, weight, expert in zip(judged, weights, self.experts, strict=True)
                if scores is not None and place < len(scores) and weight > 0
                if math.isfinite(scores[place].value)
            ]
            total = sum(weight for _, weight, _ in known)
            mean = sum(value * weight for value, weight, _ in known) / total if total else math.nan
            means.append(Score(mean, "composite", ", ".join(f"{name} {value:.3g}" for value, _, name in known)))
        return means

    def _difficulty(self, problem: Problem, paths: Sequence[Path]) -> float:
        if self.difficulty == "length":
            return min(1.0, len(problem.question.split()) / LONG)
        votes = Counter(path.answer for path in paths if path.answer is not None)
        return 1 - max(votes.values()) / votes.total() if votes else 1.0

    async def _ask(self, ask: Callable[[Any, Call], Awaitable[Result]], call: Call) -> list[Result | None]:
        """What each expert answers; None of one that failed. Raises VerifierError where all did."""
        failed: list[str] = []

        async def one(expert: Expert, judge: Verifier) -> Result | None:
            try:
                return await ask(judge, call.staged(expert.name))
            except (BudgetExhausted, RequestError, EngineError):
                raise
            except Exception as error:  # a boundary: one expert's own failure leaves the others
                failed.append(f"{expert.name}: {type(error).__name__}: {error}")
                return None

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(*pair)) for pair in zip(self.experts, self._judges, strict=True)]
        if len(failed) == len(tasks):
            raise VerifierError("; ".join(failed))
        return [task.result() for task in tasks]


class StepComposite(Composite):
    """A composite with at least one expert that judges steps; those alone judge them."""

    async def score_steps(self, problem: Problem, path: Path, call: Call) -> list[Score]:
        """The weighted mean a step. Raises VerifierError where experts see different steps."""

        async def ask(judge: Verifier, own: Call) -> list[Score] | None:
            return await judge.score_steps(problem, path, own) if isinstance(judge, ProcessVerifier) else None

        judged = await self._ask(ask, call)
        counts = {len(steps) for steps in judged if steps is not None}
        if len(counts) != 1:
            raise VerifierError(f"the experts see different numbers of steps: {sorted(counts)}")
        return self._means(judged, counts.pop(), self._difficulty(problem, [path]))
