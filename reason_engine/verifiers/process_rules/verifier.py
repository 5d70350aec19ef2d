"""`process-rules`: each step judged by rules and by the model's own likelihood; no second model.

Rewards for steps instead of outcomes: Uesato et al. 2022, arXiv:2211.14275, section 2; there they are learned, here
they follow from rules. A weighted sum over what can be said of a step t,

    r_t = 0.3 syntax_t + 0.5 coherence_t + 0.2 fact_t,     R = product over t of r_t (or their least, or their mean)

syntax      its form: brackets close, equations parse, no step is said twice, an answer follows the answer's marker
coherence   g_t l_t: g_t tells whether the numbers it computes with are known (`_ledger`), l_t is the geometric mean of
            the probabilities of its tokens
fact        its arithmetic, in exact rationals; a step of prose: whether the operator's or the question's sources say it

The weights are renormalised over the parts that have something to say: no sources and no equation, no `fact`; no
probabilities and no numbers, no `coherence`. A step with a refuted equation is not saved by its form: its sum is
multiplied by REFUTED, so that under every aggregate a path with one falls behind a path without.

A path taken apart: its steps, and how likely the model found each of them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from reason_engine.contracts import Call, Site
from reason_engine.errors import first_error
from reason_engine.types import Passage, Path, Problem, Score
from reason_engine.verifiers import verifiers
from reason_engine.verifiers.process_rules.equations import Equation, equations, numbers
from reason_engine.verifiers.process_rules.rules import Ledger, support, well_formed

REFUTED = 0.1
"""Factor of a step whose arithmetic is wrong."""
LOOKUPS = 32
"""Steps of one call that are looked up in the operator's documents."""

Aggregate = Literal["product", "min", "mean"]


class Weights(BaseModel):
    """How much each part counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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

    _step_end: str = PrivateAttr("\n")
    _marker: str | None = PrivateAttr("Answer:")

    def bind(self, site: Site) -> ProcessRules:
        """This model's ends of steps and marker of answers."""
        bound = self.model_copy()
        bound._step_end, bound._marker = site.profile.step_end, site.profile.answer_marker
        return bound

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """The aggregate over each path's steps; 0 for a path without any. `detail` names the weakest step."""
        judged = await self._judge(problem, paths, call)
        fold = _AGGREGATES[self.aggregate]
        scores: list[Score] = []
        for steps in judged:
            worst = min(steps, key=lambda step: step.value, default=None)
            detail = worst.detail if worst else "no steps"
            scores.append(
                Score(fold([step.value for step in steps]) if steps else 0.0, "process-rules", detail)
            )
        return scores

    async def score_steps(self, problem: Problem, path: Path, call: Call) -> list[Score]:
        """One score a step, those without text left out."""
        return (await self._judge(problem, [path], call))[0]

    async def _judge(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[list[Score]]:
        taken = [steps_of(path, self._step_end) for path in paths]
        known = await _looked_up(problem, taken, call)
        # Computation stays off the event loop's hands only as long as it is short.
        judged: list[list[Score]] = []
        for steps in taken:
            judged.append(self._walk(problem, steps, known))
            await asyncio.sleep(0)
        return judged

    def _walk(
        self, problem: Problem, steps: Sequence[Step], known: Mapping[str, Sequence[Passage]]
    ) -> list[Score]:
        """The steps in order, each seeing what those before it gave."""
        ledger = _ledger(problem)
        said: set[str] = set()
        scores: list[Score] = []
        for step in steps:
            found = equations(step.text)
            ending = self._marker is not None and step.text.lstrip().startswith(self._marker)
            fault = well_formed(step.text, found, said, self._marker)
            said.add(" ".join(step.text.split()))
            grounded, derived = _account(ledger, step.text, found, ending)
            fact, reason = _fact(step.text, found, derived, known.get(step.text))
            parts = {
                "syntax": 0.0 if fault else 1.0,
                "coherence": _product(grounded, step.likelihood),
                "fact": fact,
            }
            refuted = any(equation.holds is False for equation in found) or derived is False
            value = self._sum(parts) * (REFUTED if refuted else 1.0)
            note = fault or reason or ("a number from nowhere" if grounded == 0 else "")
            scores.append(Score(value, "process-rules", f"{step.text[:80]}: {note}" if note else ""))
        return scores

    def _sum(self, parts: Mapping[str, float | None]) -> float:
        weights = self.weights.model_dump()
        heard = {name: value for name, value in parts.items() if value is not None and weights[name] > 0}
        total = sum(weights[name] for name in heard)
        return sum(weights[name] * value for name, value in heard.items()) / total if total else 1.0


def _ledger(problem: Problem) -> Ledger:
    around = [*(turn.content for turn in problem.history), *(passage.text for passage in problem.sources)]
    return Ledger(tuple(numbers(problem.asked)), tuple(numbers("\n".join(around))))


def _account(
    ledger: Ledger, text: str, found: Sequence[Equation], ending: bool
) -> tuple[float | None, bool | None]:
    """(how well the step's numbers are grounded, whether the answer is the last result); None: nothing to say."""
    grounded: float | None = None
    before = len(ledger.results)
    for equation in found:
        if equation.operands:
            taken = ledger.take(equation.operands)
            grounded = taken if grounded is None else min(grounded, taken)
    if not ending:
        for equation in found:
            if equation.result is not None and equation.operands:
                ledger.put(equation.result)
        return grounded, None
    if not before:
        return grounded, None
    value = found[-1].result if found else next(iter(numbers(text)[-1:]), None)
    if value is None:
        return grounded, None
    return ledger.spent() * (1.0 if grounded is None else grounded), ledger.derived(value)


def _fact(
    text: str, found: Sequence[Equation], derived: bool | None, passages: Sequence[Passage] | None
) -> tuple[float | None, str]:
    """(1 right, 0 wrong, between: how far sources bear it out, None: nobody knows; why not)."""
    wrong = next((equation for equation in found if equation.holds is False), None)
    if wrong:
        return 0.0, f"{wrong.left} is not {wrong.right}"
    if derived is False:
        return 0.0, "not what the steps come to"
    if any(equation.holds for equation in found) or derived:
        return 1.0, ""
    if passages:
        share = support(text, passages)
        return share, "" if share >= 0.5 else "no source says it"
    return None, ""


async def _looked_up(
    problem: Problem, taken: Sequence[Sequence[Step]], call: Call
) -> dict[str, Sequence[Passage]]:
    """For each step of prose the passages that may bear it out: the question's sources and what is found for it."""
    prose = {step.text: None for steps in taken for step in steps if not equations(step.text)}
    wanted = list(prose)[:LOOKUPS]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {text: group.create_task(call.retrieve(text[:500])) for text in wanted}
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    found = {text: (*problem.sources, *task.result()) for text, task in tasks.items()}
    return {text: passages for text, passages in found.items() if passages}


def _product(grounded: float | None, likelihood: float | None) -> float | None:
    known = [value for value in (grounded, likelihood) if value is not None]
    return math.prod(known) if known else None


_AGGREGATES: Mapping[Aggregate, Callable[[Sequence[float]], float]] = {
    "product": math.prod,
    "min": min,
    "mean": lambda values: sum(values) / len(values),
}


MOST = 512
"""Steps of one path that are looked at."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step's text, and the geometric mean of its tokens' probabilities; None where none were recorded."""

    text: str
    likelihood: float | None


def steps_of(path: Path, end: str = "\n") -> list[Step]:
    """The steps of a path, empty ones left out. A token that spans a border counts where it begins."""
    bounds: list[tuple[int, int, str]] = []
    at = 0
    for piece in path.text.split(end):
        bounds.append((at, at + len(piece) + len(end), piece))
        at += len(piece) + len(end)
    sums = [(0.0, 0)] * len(bounds)
    place, here = len(path.prefill), 0
    for token in path.logprobs:
        while here < len(bounds) - 1 and place >= bounds[here][1]:
            here += 1
        if place < len(path.text) and math.isfinite(token.logprob):
            total, count = sums[here]
            sums[here] = (total + min(0.0, token.logprob), count + 1)
        place += len(token.token)
    found = [
        Step(piece, math.exp(total / count) if count else None)
        for (_, _, piece), (total, count) in zip(bounds, sums, strict=True)
        if piece.strip()
    ]
    return found[:MOST]
