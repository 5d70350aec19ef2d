"""Self-refine: answer, let the model criticise its answer, revise, until there is nothing left to gain.

Madaan et al. 2023, arXiv:2303.17651, section 2 (algorithm 1): y_0 = M(x); fb_t = M(x, y_t); y_{t+1} = M(x, y_t, fb_t);
stop when the feedback says so, or after so many rounds.
Departures: a profile may say that a critique holds the revision already, which saves a call; the last version and its
critique are shown, not the whole history; an answer that does not change, or that a named verifier likes no better,
ends it too. A checker of the task tells a right answer from a wrong one: a right one ends it, a wrong one is not
accepted. `n` first drafts are refined side by side, and vote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field, field_validator

from reason_engine.errors import BudgetExhausted, ContextLengthExceeded, VerifierError
from reason_engine.profile import Critique, fill
from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies.voting.ballot import Ballot
from reason_engine.strategies.voting.votes import count_votes
from reason_engine.types import Answer, Draw, Path, Problem


@dataclass(frozen=True, slots=True)
class Version:
    """A path that answers, the whole solution that it stands for, and what a verifier thinks of it."""

    path: Path
    solution: str
    score: float | None = None


@strategies.register("self-refine")
class SelfRefine(Strategy):
    """Critique and revision in turns, until a critique finds all right."""

    summary: ClassVar[str] = "Answer, criticise, revise, until nothing is gained"
    paper: ClassVar[str] = "arXiv:2303.17651"
    votes: ClassVar[bool] = True

    rounds: int = Field(3, ge=1, le=32, description="most rounds of critique and revision of a draft")
    n: int = Field(1, ge=1, le=64, description="first drafts; more than one are refined apart and vote")
    critique_prompt: str | None = Field(None, max_length=8192, description="literal {problem} and {solution}")
    revise_prompt: str | None = Field(None, max_length=8192, description="literal {problem}, {solution} and {critique}")
    accepts: str = Field(
        "Verdict: right",
        min_length=1,
        max_length=200,
        description="what a critique asked for by critique_prompt says where all is right",
    )

    @field_validator("critique_prompt", "revise_prompt")
    @classmethod
    def shows_the_solution(cls, value: str | None) -> str | None:
        if value is not None and "{solution}" not in value:
            raise ValueError("must hold {solution}, where the solution is shown")
        return value

    @property
    def width(self) -> int:
        return self.n

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Draft, refine each draft, vote if there are several."""
        temperature = self.sampling_temperature(ctx)
        paths = await ctx.sample(ctx.format_prompt("steps"), Draw(self.n, temperature=temperature, final=True))
        drafts = [await self._version(ctx, path, _content(ctx, path)) for path in paths if path.finished]
        for draft in drafts:
            _propose(ctx, draft)
        refined = await ctx.gather_within_budget(
            lambda draft: self._refine(ctx, temperature, *draft), list(enumerate(drafts))
        )
        final = [version for version in refined if version]
        if self.n > 1:
            ballot = Ballot(self.n)
            await ballot.count(ctx, [version.path for version in final])
            if (answer := await ballot.answer(ctx)).path:
                return answer
        return _answer(final[0]) if final else Answer()

    async def _refine(self, ctx: Context, temperature: float, number: int, version: Version) -> Version:
        """One draft through its rounds."""
        async with ctx.span(f"draft {number}") as draft:
            for turn in range(1, self.rounds + 1):
                async with draft.span(f"round {turn}") as here:
                    try:
                        better, why = await self._round(here, temperature, version)
                    except (BudgetExhausted, ContextLengthExceeded) as cut:
                        better, why = (None, "no budget left" if isinstance(cut, BudgetExhausted) else "no room left")
                    here.note(outcome=why)
                if better is None:
                    draft.note(ended=why)
                    break
                version = better
                _propose(draft, version)
            else:
                draft.note(ended="all rounds done")
        return version

    async def _round(self, ctx: Context, temperature: float, now: Version) -> tuple[Version | None, str]:
        """A better version, or None, and why."""
        checker, critic = ctx.checker, self._critique_of(ctx)
        right = checker.solved(now.path.answer) if checker and now.path.answer is not None else None
        if right:
            return None, "the checker finds it right"
        shown = {"problem": ctx.problem.question, "solution": now.solution}
        (critique,) = await ctx.sample(
            fill(critic.prompt or CRITIQUE, shown), Draw(temperature=temperature, stage="critique")
        )
        remarks = _content(ctx, critique)
        if re.search(critic.accepts, remarks):
            return (None, "accepted") if right is None else (now, "accepted, but the checker finds it wrong")
        if critic.revises:
            new = await self._version(ctx, critique, _spliced(now.solution, remarks, critic.from_line))
        else:
            prompt = critic.revise or ctx.format_prompt("steps", REVISE)
            draw = Draw(temperature=temperature, stage="revise", final=True)
            (path,) = await ctx.sample(fill(prompt, shown | {"critique": remarks}), draw)
            new = await self._version(ctx, path, _content(ctx, path))
        return await self._gain(ctx, now, new, wrong=right is False)

    async def _gain(self, ctx: Context, now: Version, new: Version, *, wrong: bool) -> tuple[Version | None, str]:
        if not new.path.finished or new.path.answer is None:
            return None, "the revision gives no answer"
        if now.path.answer is not None and len(await count_votes(ctx, [now.path, new.path])) == 1:
            return (now, "the same wrong answer") if wrong else (None, "the answer stays")
        if now.score is not None and (new.score is None or new.score <= now.score):
            return None, "the verifier likes the revision no better"
        return new, "revised"

    async def _version(self, ctx: Context, path: Path, solution: str) -> Version:
        """Judged where a verifier is named; one that fails on it has said nothing."""
        if not (ctx.verifier and path.finished):
            return Version(path, solution)
        try:
            (judged,) = await ctx.score([path])
        except VerifierError:
            judged = None
        return Version(path, solution, judged.value if judged else None)

    def _critique_of(self, ctx: Context) -> Critique:
        """How critiques are asked for and read: by the request's own prompts, else by the model's profile."""
        profiled = ctx.profile.critique
        if self.critique_prompt is None:
            return profiled.model_copy(update={"revise": self.revise_prompt or profiled.revise})
        accepts = "(?i)" + re.escape(self.accepts)
        return Critique(prompt=self.critique_prompt, revise=self.revise_prompt or profiled.revise, accepts=accepts)


def _propose(ctx: Context, version: Version) -> None:
    if version.path.answer is not None:
        ctx.propose(_answer(version), version.score or 0.0)


def _answer(version: Version) -> Answer:
    sure = version.score if version.score is not None and 0 <= version.score <= 1 else None
    return Answer(version.path, version.path.answer, sure)


def _content(ctx: Context, path: Path) -> str:
    """What a path says after its thoughts."""
    parsed = ctx.parse(path)
    return path.text if parsed.tool_calls else parsed.content


def _spliced(solution: str, critique: str, from_line: str | None) -> str:
    """The solution with what the critique says after naming one of its lines in place of its lines from there on; with
    what follows the first line where it names none."""
    found = re.search(from_line, critique) if from_line else None
    begin = int(found[1]) if found and found[1].isdecimal() and len(found[1]) < 6 else 1
    new = critique[found.end() if found else 0 :].partition("\n")[2]
    return "\n".join([*solution.splitlines()[: max(begin - 1, 0)], new])


CRITIQUE = """\
{problem}

A proposed solution:
{solution}

Go through it step by step and look for mistakes. Say what is wrong, if anything, and why. End with a line that reads
"Verdict: right" if everything is right, and "Verdict: wrong" if not."""

REVISE = """\
{problem}

A proposed solution:
{solution}

What a reviewer says of it:
{critique}

Write the corrected solution in full."""
