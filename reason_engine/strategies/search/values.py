"""Values thoughts, whole or partial: what guides every search over steps.

By a process verifier: its scores s_1..s_t of the steps so far become one value by the last, the least, the product or
the mean of them (Snell et al. 2024, arXiv:2408.03314, section 5.1, take the last; Lightman et al. 2023,
arXiv:2305.20050, section 2.6, product and minimum). By the model: the probability of `value_options[0]` after the value
prompt, without a checker against what it says of nonsense (`calibration.py`), or votes on all states in one prompt (Yao
et al. 2023, arXiv:2305.10601, section 3.3). By likelihood: the geometric mean probability of the last step's tokens.
What a checker knows for certain is asked first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol

from reason_engine.errors import VerifierError
from reason_engine.profile import Profile, fill
from reason_engine.runtime.context import Context
from reason_engine.runtime.verify import step_judge, usual_step_judge
from reason_engine.strategies.search.calibration import Calibration
from reason_engine.strategies.search.steps import Steps
from reason_engine.strategies.search.tree import Thought
from reason_engine.types import Aggregate, Draw, Path, aggregated

By = Literal["value", "verifier", "vote", "likelihood"]


def verifier_for(
    evaluate: By | None, named: tuple[str, dict[str, object]] | None, profile: Profile, *, checked: bool
) -> tuple[str, dict[str, object]] | None:
    """The verifier of a search that values by `evaluate`. None leaves the choice to what there is: the verifier that
    the request names, else, unless a checker knows the task, the profile's verifier of steps, else none."""
    if named is None and evaluate == "verifier":
        return usual_step_judge(profile), {}
    if named is None and evaluate is None and not checked and (name := step_judge(profile)):
        return name, {}
    return named


class Valuing(Protocol):
    """What values the states of a search. `furthest`: the deepest open state valued so far, the best of those;
    `fault`: why the values are not to be followed, empty where they are."""

    @property
    def furthest(self) -> Thought: ...
    @property
    def fault(self) -> str: ...
    async def of(self, ctx: Context, thoughts: Sequence[Thought]) -> list[Thought | None]: ...


class Values:
    """The values of one search. Remembers the model's judgements by state, and the furthest open thought."""

    def __init__(
        self,
        ctx: Context,
        steps: Steps,
        by: By,
        *,
        aggregate: Aggregate = "last",
        prompt: str | None = None,
        votes: int = 1,
    ) -> None:
        self._steps, self._votes, self._options = steps, votes, ctx.profile.value_options
        self._by: By = by
        self._aggregate: Aggregate = aggregate
        # The profile's prompt, unless it shows no problem and no checker tells a state that says all.
        usual = ctx.profile.value_prompt or ""
        self._prompt = prompt or (usual if steps.checked or "{problem}" in usual else "") or VALUE
        self._known: dict[str, float] = {}
        self._calibration = Calibration() if by == "value" and not steps.checked else None
        self._measured = False
        self.furthest = Thought()
        """The deepest open thought valued so far, the best of those."""

    @property
    def fault(self) -> str:
        """Why these values are not to be followed; empty where they are."""
        return self._calibration.fault if self._calibration else ""

    async def of(self, ctx: Context, thoughts: Sequence[Thought]) -> list[Thought | None]:
        """The thoughts with their values; None for one that the verifier failed on. Finished ones are proposed.

        Raises VerifierError where it failed on all, BudgetExhausted where nothing could be valued.
        """
        began = ctx.budget.seconds
        if self._calibration and thoughts and not self._measured:
            self._measured = True
            await self._calibration.measure(ctx, lambda state: self._ask(ctx, state))
        values = await (self._vote if self._by == "vote" else self._each)(ctx, thoughts)
        self._steps.pace.valued(ctx.budget.seconds - began)
        return [
            None if value is None else self._seen(ctx, replace(thought, value=value))
            for thought, value in zip(thoughts, values, strict=True)
        ]

    def _seen(self, ctx: Context, thought: Thought) -> Thought:
        if thought.path:
            ctx.record_score(thought.path.node, thought.value, by=self._by)
        if thought.done:
            ctx.propose(thought.answer, thought.value)
        elif (thought.depth, thought.value) >= (self.furthest.depth, self.furthest.value):
            self.furthest = thought
        return thought

    async def _each(self, ctx: Context, thoughts: Sequence[Thought]) -> list[float | None]:
        failed: list[VerifierError] = []

        async def one(thought: Thought) -> float | None:
            try:
                return await self._value(ctx, thought)
            except VerifierError as error:
                failed.append(error)
                return None

        values = await ctx.gather_within_budget(one, thoughts)
        if failed and all(value is None for value in values):
            raise failed[0]
        return values

    async def _value(self, ctx: Context, thought: Thought) -> float:
        if (verdict := self._steps.rules.verdict(thought)) is not None:
            return float(verdict)
        if self._by == "verifier":
            path = thought.path or Path(ctx.node, self._steps.draws.rendered, thought.text)
            scores = await ctx.score_steps(path)
            return aggregated([score.value for score in scores], self._aggregate)
        if self._by == "likelihood":
            return thought.likelihood
        if thought.key not in self._known:
            found = await self._ask(ctx, self._steps.state(thought))
            self._known[thought.key] = self._calibration.value(thought.key, found) if self._calibration else found
        return self._known[thought.key]

    async def _ask(self, ctx: Context, state: str) -> float:
        shown = {"problem": ctx.problem.question, "state": state}
        return (await ctx.choice(fill(self._prompt, shown), self._options, stage="value")).probabilities[0]

    async def _vote(self, ctx: Context, thoughts: Sequence[Thought]) -> list[float | None]:
        """Each state's share of the votes cast on all of them in one prompt."""
        if self._steps.rules.solved(thoughts):
            return [float(self._steps.rules.verdict(thought) is True) for thought in thoughts]
        if len(thoughts) < 2:
            return [1.0 for _ in thoughts]
        listed = "\n\n".join(f"Choice {i}:\n{t.text.strip()}" for i, t in enumerate(thoughts, 1))
        prompt = VOTE.replace("{problem}", ctx.problem.question).replace("{choices}", listed)
        draw = Draw(self._votes, max_tokens=256, temperature=self._steps.draws.temperature, stage="vote")
        paths = await ctx.sample(prompt, draw)
        cast = [int(found[-1]) for path in paths if (found := re.findall(r"\d+", path.text)) and len(found[-1]) < 4]
        return [cast.count(i) / max(1, len(cast)) for i in range(1, len(thoughts) + 1)]


VALUE = """{problem}

A partial solution:
{state}

Can this partial solution be completed to a correct answer? Reply with one word: yes or no."""

VOTE = """{problem}

{choices}

Which choice is the most promising? Give your reasons in a sentence and end with its number."""
