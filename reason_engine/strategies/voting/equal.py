"""Which answers of a run are the same vote, by the kind of answer that is wanted.

Values are the same as `answers.Equality` says of their kind. Besides: programs where they do the same (`programs.py`),
as far as they may be run; short answers in other words, if it is asked for, where the model finds two to be the same
(one question a pair of different answers, the probability of yes).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from reason_engine.errors import BudgetExhausted, ContextLengthExceeded
from reason_engine.profile import fill
from reason_engine.runtime.context import Context
from reason_engine.strategies.voting.programs import ProgramRuns

WORDS, QUESTIONS = 12, 48
"""Words of an answer that is asked about; questions of one run."""
RUN_SECONDS = 60.0
"""For all new programs of a wave together, and never more than half of what the request has left."""


@dataclass
class SameAnswers:
    """The answers of one run in groups. What was found out about programs and words is kept for the next wave.
    `ask`: whether the model is asked about short answers in other words."""

    ask: bool = False
    _runs: ProgramRuns | None = None
    _same: dict[tuple[str, str], bool] = field(default_factory=dict[tuple[str, str], bool])

    async def names(self, ctx: Context, answers: Sequence[str]) -> list[str | None]:
        """Each answer as the first of those that it is the same as; None for one that abstains after all."""
        given = list(answers)
        if not given or ctx.checker:
            return [*given]
        if ctx.spec.kind == "code" and not (ctx.problem.tools or ctx.problem.structured):
            return await self._programs(ctx, given)
        names = await ctx.merge_equal(given)
        return [*(await self._asked(ctx, names) if self.ask and ctx.spec.kind == "words" else names)]

    async def _programs(self, ctx: Context, programs: list[str]) -> list[str | None]:
        """By what they do, else by their syntax trees."""
        first: dict[str, str] = {}
        heads = await ctx.merge_equal(programs)
        by_syntax = [first.setdefault(head, program) for head, program in zip(heads, programs, strict=True)]
        sandbox = ctx.run.powers.code
        if sandbox is None or sandbox.refusal:
            ctx.note(programs="compared by their syntax: programs may not be run here")
            return [*by_syntax]
        if self._runs is None:
            self._runs = ProgramRuns(ctx.problem.asked, ctx.spec.entry_point)
        left = ctx.budget.seconds_left
        seconds = RUN_SECONDS if left is None else max(0.0, min(RUN_SECONDS, left / 2))
        found = await self._runs.compare(sandbox, by_syntax, seconds)
        if found is None:
            ctx.note(programs="compared by their syntax: no example to run them on, or no time for it")
            return [*by_syntax]
        ctx.note(
            programs=f"run on {found.inputs} inputs; the best give {found.passed} of {found.stated} stated outputs"
        )
        return [*found.head]

    async def _asked(self, ctx: Context, names: Sequence[str]) -> list[str]:
        """With answers joined that the model finds to be the same, each with the most frequent one that it equals."""
        if not ctx.caps.choose:
            return list(names)
        joined: dict[str, str] = {}
        for name, _ in Counter(names).most_common():
            joined[name] = name
            for head in dict.fromkeys(joined.values()):
                if head != name and await self._mean_the_same(ctx, head, name):
                    joined[name] = head
                    break
        return [joined[name] for name in names]

    async def _mean_the_same(self, ctx: Context, first: str, second: str) -> bool:
        """Never of answers with other numbers in them: a model likes "in 1912" and "in 1921" to be the same."""
        if _NUMBER.findall(first) != _NUMBER.findall(second) or max(len(first.split()), len(second.split())) > WORDS:
            return False
        first, second = sorted((first, second))
        if (first, second) not in self._same and len(self._same) < QUESTIONS:
            shown = {"problem": ctx.problem.question, "first": first, "second": second}
            try:
                found = await ctx.choice(fill(SAME, shown), ("yes", "no"), stage="vote")
            except (BudgetExhausted, ContextLengthExceeded):
                return False
            self._same[first, second] = found.probabilities[0] > 0.5
        return self._same.get((first, second), False)


_NUMBER = re.compile(r"\d+")
SAME = """\
Question:
{problem}

One person answers: {first}
Another answers: {second}

Do both give the same answer to the question, in whatever words? Reply yes or no."""
