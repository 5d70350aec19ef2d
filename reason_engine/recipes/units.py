"""Units: an amount in two or three of them, to be said in the smallest one.

    How many seconds are 2 hours, 5 minutes and 30 seconds?
    Think step by step.
    ->
    2 * 60 = 120
    120 + 5 = 125
    125 * 60 = 7500
    7500 + 30 = 7530
    Answer: 7530

Not in the recipe of reason-nano, on purpose: it is the new task on which methods of training are measured. A tenth of
all amounts, chosen by a checksum of their text, is kept for evaluations and never drawn for training.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from reason_engine.data import STEPS, Example, Options, families
from reason_engine.evals import tasks
from reason_engine.evals.datasets import Range
from reason_engine.recipes import GeneratedTask
from reason_engine.recipes.arithmetic import Equation, work_out
from reason_engine.recipes.words import WordProblem
from reason_engine.types import Problem

LIMIT = 9999
Kind = Literal["time", "length", "weight", "volume", "count"]
KINDS: dict[str, tuple[tuple[Any, ...], ...]] = {
    "time": (
        (("week", "weeks"), 7, ("day", "days"), 24, ("hour", "hours")),
        (("day", "days"), 24, ("hour", "hours"), 60, ("minute", "minutes")),
        (("hour", "hours"), 60, ("minute", "minutes"), 60, ("second", "seconds")),
        (("year", "years"), 12, ("month", "months"), 30, ("day", "days")),
    ),
    "length": (
        (("yard", "yards"), 3, ("foot", "feet"), 12, ("inch", "inches")),
        (("kilometre", "kilometres"), 1000, ("metre", "metres"), 100, ("centimetre", "centimetres")),
    ),
    "weight": ((("stone", "stones"), 14, ("pound", "pounds"), 16, ("ounce", "ounces")),),
    "volume": ((("gallon", "gallons"), 4, ("quart", "quarts"), 2, ("pint", "pints")),),
    "count": ((("box", "boxes"), 12, ("dozen", "dozens"), 12, ("egg", "eggs")),),
}
"""From large to small, with the factor between neighbours (a month is taken as 30 days)."""
ASKED = (
    "How many {unit} are {amount}?", "Convert {amount} to {unit}.", "Write {amount} in {unit}.",
    "What is {amount} in {unit}?",
)  # fmt: skip


def _known(value: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= value[0] <= value[1] <= 2:
        raise ValueError("levels are 1, 2 or both")
    return value


@families.register("units")
class Units(Options):
    """`rationale`: share answered by steps; the rest gives the number at once. `levels`: factors to multiply by.
    `kinds`: of amounts; none for all. `held_out`: draw those that are kept for evaluations, to measure a loss on."""

    rationale: float = Field(1.0, ge=0, le=1)
    levels: Annotated[tuple[int, int], AfterValidator(_known)] = (1, 2)
    kinds: tuple[Kind, ...] = ()
    held_out: bool = False

    def example(self, rng: random.Random) -> Example:
        """Units: an amount in two or three of them, to be said in the smallest one."""
        one = conversion(rng, rng.randint(*self.levels), self.kinds, held_out=self.held_out)
        if rng.random() >= self.rationale:
            return Example(one.question, f"Answer: {one.answer}", "units")
        return Example(f"{one.question}\n{STEPS}", one.rationale, "units")


@tasks.register("units")
class UnitsTask(GeneratedTask):
    """`levels`: factors to multiply by. `kind`: of amounts; none for all."""

    seeds: ClassVar[str] = "units"

    levels: Annotated[Range, AfterValidator(_known)] = Field((1, 2))
    kind: Kind | None = None

    def generate(self, rng: random.Random, index: int) -> Problem:
        """One of the amounts that training never draws."""
        one = conversion(rng, rng.randint(*self.levels), (self.kind,) if self.kind else (), held_out=True)
        return Problem(one.question, reference=str(one.answer), task="units", meta={"index": index})


def conversion(rng: random.Random, levels: int, kinds: Sequence[Kind] = (), *, held_out: bool = False) -> WordProblem:
    """A fresh amount over `levels` factors, of those kept for evaluations or of the others. Raises ValueError unless
    there are 1 or 2."""
    if levels not in (1, 2):
        raise ValueError("levels must be 1 or 2")
    ladders = [ladder for kind in kinds or KINDS for ladder in KINDS[kind]]
    while True:
        ladder = rng.choice(ladders)
        start = 0 if levels == 2 else rng.choice((0, 2))
        end = start + 2 * levels
        names, factors = ladder[start : end + 1 : 2], ladder[start + 1 : end : 2]
        counts = [rng.randint(1, 60), *(rng.randint(0, min(99, factor - 1)) for factor in factors)]
        lines, value = list[Equation](), counts[0]
        for factor, count in zip(factors, counts[1:], strict=True):
            lines += work_out(rng, value, "*", factor)
            if count:
                lines += work_out(rng, lines[-1].value, "+", count)
            value = lines[-1].value
        amount = _amount(counts, names)
        if value <= LIMIT and (zlib.crc32(amount.encode()) % 10 == 0) == held_out:
            break
    question = rng.choice(ASKED).format(amount=amount, unit=names[-1][1])
    return WordProblem(question, tuple(lines), value)


def _amount(counts: Sequence[int], names: Sequence[Any]) -> str:
    parts = [f"{n} {name[n != 1]}" for n, name in zip(counts, names, strict=True) if n]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
