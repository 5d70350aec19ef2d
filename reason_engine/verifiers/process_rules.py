"""`process-rules`: each step judged by rules and by the model's own likelihood; no second model.

Rewards for steps instead of outcomes: Uesato et al. 2022, arXiv:2211.14275, section 2; there they are learned, here
they follow from rules. A weighted sum of three measures of a step t,

    r_t = 0.3 syntax_t + 0.5 coherence_t + 0.2 fact_t,     R = product over t of r_t (or their least, or their mean)

syntax      its form: brackets close, equations parse, no step is repeated, an answer follows the answer's marker
coherence   g_t l_t: g_t is how well the numbers it computes with are grounded (`Ledger`), l_t is the geometric mean of
            the probabilities of its tokens
fact        its arithmetic, in exact rationals; a step of prose: whether the operator's or the question's sources say
            it,  support(s) = max over passages p of |words(s) & words(p)| / |words(s)|, halved for each number of s
            that p lacks: a measure of wording, which separates an invented fact from a quoted one, not a true
            one from its negation

The weights are renormalised over the parts that can be measured: no sources and no equation, no `fact`; no
probabilities and no numbers, no `coherence`. A step with a refuted equation is not saved by its form: its sum is
multiplied by REFUTED, so that under every aggregate a path with one falls behind a path without.
"""

from __future__ import annotations

import asyncio
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from reason_engine.contracts import Call, Site
from reason_engine.errors import first_error
from reason_engine.steps import BLANK_LINE, step_pieces
from reason_engine.types import Passage, Path, Problem, Score, aggregated
from reason_engine.verifiers import verifiers
from reason_engine.verifiers.arithmetic import LONGEST, Equation, Ledger, equations, numbers

REFUTED = 0.1
"""Factor of a step whose arithmetic is wrong."""
LOOKUPS = 32
"""Steps of one call that are looked up in the operator's documents."""
STEPS = 512
"""Steps of one path that are judged."""
REPEATS = 4
"""A phrase that stands so often in a row is a model in a loop."""

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
        sources = await _look_up(problem, split, call)
        judged: list[list[Score]] = []
        for steps in split:
            judged.append(self._judge_steps(problem, steps, sources))
            await asyncio.sleep(0)  # between two paths the event loop may do other work
        return judged

    def _judge_steps(
        self, problem: Problem, steps: Sequence[Step], sources: Mapping[str, Sequence[Passage]]
    ) -> list[Score]:
        """The steps in order, each with the results of those before it."""
        around = [*(turn.content for turn in problem.history), *(source.text for source in problem.sources)]
        ledger = Ledger(tuple(numbers(problem.asked)), tuple(numbers("\n".join(around))))
        earlier: set[str] = set()
        scores: list[Score] = []
        for step in steps:
            found = equations(step.text)
            ending = self._marker is not None and step.text.lstrip().startswith(self._marker)
            fault = fault_of_form(step.text, found, earlier, self._marker)
            earlier.add(" ".join(step.text.split()))
            grounded, derived = _account(ledger, step.text, found, ending)
            fact, reason = _fact(step.text, found, derived, sources.get(step.text))
            parts = {"syntax": 0.0 if fault else 1.0, "coherence": _coherence(grounded, step.likelihood), "fact": fact}
            refuted = any(equation.holds is False for equation in found) or derived is False
            value = self._sum(parts) * (REFUTED if refuted else 1.0)
            note = fault or reason or ("a number from nowhere" if grounded == 0 else "")
            scores.append(Score(value, "process-rules", f"{step.text[:80]}: {note}" if note else ""))
        return scores

    def _sum(self, parts: Mapping[str, float | None]) -> float:
        weights = self.weights.model_dump()
        known = {name: value for name, value in parts.items() if value is not None and weights[name] > 0}
        total = sum(weights[name] for name in known)
        return sum(weights[name] * value for name, value in known.items()) / total if total else 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step's text, and the geometric mean of its tokens' probabilities; None where none were recorded."""

    text: str
    likelihood: float | None


def steps_of(path: Path, end: str) -> list[Step]:
    """The steps of a path, empty ones left out. A token that spans a border counts where it begins."""
    pieces = step_pieces(path.text, end)
    borders = list(accumulate(len(piece) + len(end) for piece in pieces))
    totals, counts = [0.0] * len(pieces), [0] * len(pieces)
    place = len(path.prefill)
    for token in path.logprobs:
        if place < len(path.text) and math.isfinite(token.logprob):
            step = bisect_right(borders, place)
            totals[step] += min(0.0, token.logprob)
            counts[step] += 1
        place += len(token.token)
    return [
        Step(piece, math.exp(total / count) if count else None)
        for piece, total, count in zip(pieces, totals, counts, strict=True)
        if piece.strip()
    ][:STEPS]


def fault_of_form(text: str, found: Sequence[Equation], earlier: Collection[str], marker: str | None = None) -> str:
    """What is wrong with the form of a step; empty where nothing is. `earlier`: the steps before it."""
    line = " ".join(text.split())
    faults: dict[str, Callable[[], object]] = {
        "empty": lambda: not line,
        "overlong": lambda: len(text) > 2 * LONGEST,
        "said before": lambda: line in earlier,
        "a bracket is open": lambda: not _balanced(line),
        "an equation that does not parse": lambda: any(e.holds is None for e in found) or _DANGLING.search(line),
        "no answer after its mark": lambda: marker and line.startswith(marker) and not line[len(marker) :].strip(),
        "a phrase again and again": lambda: _LOOP.search(line),
    }
    return next((fault for fault, stands in faults.items() if stands()), "")


def support(text: str, passages: Sequence[Passage]) -> float:
    """How far these passages support a sentence, from 0 to 1; 1 for a sentence without any word that counts."""
    claim = _CITED.sub(" ", text)
    words, figures = _content_words(claim), set(numbers(claim))
    if not words and not figures:
        return 1.0
    best = 0.0
    for passage in passages:
        there = _content_words(passage.text)
        share = len(words & there) / len(words) if words else 1.0
        best = max(best, share * 0.5 ** len(figures - set(numbers(passage.text))))
    return best


def _account(ledger: Ledger, text: str, found: Sequence[Equation], ending: bool) -> tuple[float | None, bool | None]:
    """(how well the step's numbers are grounded, whether the answer is the last result); None: not measured."""
    grounded: float | None = None
    for equation in found:
        if equation.operands:
            taken = ledger.take(equation.operands)
            grounded = taken if grounded is None else min(grounded, taken)
    if not ending:
        for equation in found:
            if equation.result is not None and equation.operands:
                ledger.put(equation.result)
        return grounded, None
    value = found[-1].result if found else next(iter(numbers(text)[-1:]), None)
    if not ledger.results or value is None:
        return grounded, None
    return ledger.spent() * (1.0 if grounded is None else grounded), ledger.derived(value)


def _fact(
    text: str, found: Sequence[Equation], derived: bool | None, passages: Sequence[Passage] | None
) -> tuple[float | None, str]:
    """(1 right, 0 wrong, between: how far sources support it, None: not known; why it is wrong)."""
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


async def _look_up(problem: Problem, split: Sequence[Sequence[Step]], call: Call) -> dict[str, Sequence[Passage]]:
    """For each step of prose the passages that may support it: the question's sources and what is found for it."""
    prose = {step.text: None for steps in split for step in steps if not equations(step.text)}
    wanted = list(prose)[:LOOKUPS]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {text: group.create_task(call.retrieve(text[:500])) for text in wanted}
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    found = {text: (*problem.sources, *task.result()) for text, task in tasks.items()}
    return {text: passages for text, passages in found.items() if passages}


def _coherence(grounded: float | None, likelihood: float | None) -> float | None:
    known = [value for value in (grounded, likelihood) if value is not None]
    return math.prod(known) if known else None


def _balanced(line: str) -> bool:
    """Whether every bracket closes its own kind; a lone closing one after a number or letter is a list's mark."""
    opened: list[str] = []
    for sign in re.sub(r"^\s*\w{1,3}\)", "", line):
        if sign in _PAIRS.values():
            opened.append(sign)
        elif sign in _PAIRS and (not opened or opened.pop() != _PAIRS[sign]):
            return False
    return not opened


def _content_words(text: str) -> set[str]:
    """Lower-cased, without endings of plurals and tenses and without the most common words."""
    found = (word for word in _WORD.findall(text.lower()[:10_000]) if word not in _COMMON)
    return {word.removesuffix("'s").removesuffix("es").removesuffix("s").removesuffix("ed") for word in found}


_PAIRS = {")": "(", "]": "[", "}": "{"}
_DANGLING = re.compile(r"\d\s*[-+*/]\s*=|=\s*$|=\s*[+*/]\s*\d|\d\s*[+*/]\s*$")
_LOOP = re.compile(rf"(\b\w.{{2,40}}?)\1{{{REPEATS - 1},}}")
_WORD = re.compile(r"[^\W\d_][\w'-]+")
_CITED = re.compile(r"\[\d{1,3}\]|^\s*[Aa]nswer:")
_COMMON_WORDS = (
    "the an and or of to in on at by for from with as is are was were be been it its this that these those he she they "
    "his her their has have had do does did not so then there here which who what when how much many more now"
)
_COMMON = frozenset(_COMMON_WORDS.split())
