"""Grows partial solutions step by step and makes one answer of those that ended, for every search over steps.

A step ends where the profile says (`step_end`); the next one continues on the tokens of the last, so that an engine
reads a prefix once. Several steps from one state are one engine request. Where the profile knows the task, its checker
drops illegal lines and tells whether an answer is right; it never proposes, values or looks ahead.

The answer is by `best` the thought of highest value, by `vote` the answer whose draws' values sum to most (best-of-n
weighted, Li et al. 2023, arXiv:2206.02336, section 3.2; the final selection of Snell et al. 2024, arXiv:2408.03314,
section 5.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp
from typing import Literal

from reason_engine.answers import find, normalise
from reason_engine.contracts import Checker
from reason_engine.runtime.context import Context
from reason_engine.strategies.search.tree import Thought
from reason_engine.strategies.self_consistency import best_voter, count_votes, settled
from reason_engine.types import Answer, Draw, Path

BLANKS = 4
"""Empty lines in a row after which a state is left alone."""


class Steps:
    """The steps of one search, drawn at temperature `temperature` with at most `most` tokens each."""

    def __init__(self, ctx: Context, *, temperature: float, most: int) -> None:
        self.temperature, self.most = temperature, most
        self._profile, self._checker = ctx.profile, ctx.checker
        self._prompt = ctx.format_prompt("steps")
        self._structured = ctx.form is not None
        self._final = bool(ctx.problem.tools) and not self._structured
        prompt = ctx.tokenized(self._prompt, final=self._final)
        self.rendered = prompt.text
        """The prompt that every state continues."""
        context = ctx.info.context
        self._ceiling = min(context, len(prompt.ids) + (ctx.max_tokens or context))

    async def grow(self, ctx: Context, thought: Thought, k: int) -> list[Thought]:
        """Up to k legal thoughts one step further. Raises BudgetExhausted if not one could be drawn."""
        if self.at_goal(thought):
            return await self._conclude(ctx, thought, k)
        return self.legal(await self._sample(ctx, thought, k))

    async def finish(self, ctx: Context, thought: Thought) -> Thought | None:
        """The thought taken to its end in one go: a playout. None where no room is left."""
        if (room := self._room(ctx, thought)) <= 0:
            return None
        (path,) = await self._draw(ctx, thought, 1, (), room, "finish")
        path = self._read(_joined(thought, path))
        lines = [line for line in path.text[len(thought.text) :].split(self._profile.step_end) if line.strip()]
        return Thought((*thought.steps, *lines), path.text, path.text.strip(), path=path, done=path.finished)

    async def in_requested_form(self, ctx: Context, answer: Answer, worked: str) -> Answer:
        """The answer in the form that the request asks for, from what was `worked` out: a search goes by steps, which
        no schema fits."""
        if not self._structured:
            return answer
        prompt = FORM.replace("{problem}", ctx.problem.question).replace("{steps}", worked.strip())
        async with ctx.span("form") as here:
            (path,) = await here.sample(prompt, Draw(temperature=self.temperature, stage="finish", final=True))
        return replace(answer, path=path, value=path.answer)

    def step(self, thought: Thought, line: str, text: str, *, ended: bool = False) -> Thought:
        """The thought that a line leads to; `text` is all that is written by then, `ended`: nothing follows."""
        marker, steps = self._profile.answer_marker, (*thought.steps, line)
        done = ended or bool(marker and line.startswith(marker))
        return Thought(steps, text, self._key(steps, text, done), done=done)

    def legal(self, thoughts: Sequence[Thought]) -> list[Thought]:
        """Those that the checker allows."""
        return [thought for thought in thoughts if self._checker is None or self._allowed(self._checker, thought)]

    def at_goal(self, thought: Thought) -> bool:
        """Whether the checker finds that these steps have reached the goal."""
        return self._checker is not None and not thought.done and self._checker.outcome(thought.steps) is True

    def verdict(self, thought: Thought) -> bool | None:
        """What the checker knows of a thought: whether its answer is right, or that its steps are at the goal."""
        if self._checker is None or not thought.done:
            return True if self.at_goal(thought) else None
        answer = thought.path.answer if thought.path else None
        return answer is not None and self._checker.solved(answer)

    def state(self, thought: Thought) -> str:
        """The state in words, for a prompt."""
        return self._key(thought.steps, thought.text, thought.done)

    @property
    def checked(self) -> bool:
        """Whether a checker can tell a right answer from a wrong one."""
        return self._checker is not None

    def solved(self, done: Sequence[Thought]) -> bool:
        """Whether the checker finds one of these answers right."""
        return any(self.verdict(thought) is True for thought in done)

    async def _sample(self, ctx: Context, thought: Thought, n: int) -> list[Thought]:
        grown, start = list[Thought](), thought
        for _ in range(BLANKS):
            most = min(self.most, self._room(ctx, start))
            if most <= 0:
                break
            paths = await self._draw(ctx, start, n, (self._profile.step_end,), most, "propose")
            blank: list[Path] = []
            for path in paths:
                if child := self._child(thought, path, most):
                    whole = self._read(_joined(start, path))
                    grown.append(replace(child, path=whole, likelihood=exp(path.mean_logprob)))
                elif path.stop_reason == self._profile.step_end:
                    blank.append(path)
            if not blank:
                break
            # An empty line is no step: what began with one goes on.
            start, n = replace(thought, text=blank[0].text, path=_joined(start, blank[0])), len(blank)
        return grown

    async def _conclude(self, ctx: Context, thought: Thought, k: int) -> list[Thought]:
        """The steps have reached the goal: draw answer lines, one, then twice as many, until one is right.

        Half of k is enough: a model that writes the same wrong line again will go on doing so.
        """
        drawn, size, found = 0, 1, list[Thought]()
        while 2 * drawn < k and not self.solved(found):
            size = min(size, k - drawn)
            found += self.legal(await self._sample(ctx, thought, size))
            drawn, size = drawn + size, 2 * size
        return [thought for thought in found if thought.done]

    async def _draw(
        self, ctx: Context, thought: Thought, n: int, stop: tuple[str, ...], most: int, stage: str
    ) -> list[Path]:
        draw = Draw(n, most, self.temperature, stop, stage=stage, final=self._final)
        if thought.path and ctx.caps.continuation:
            return await ctx.extend(thought.path, draw)
        return await ctx.sample(self._prompt, replace(draw, prefill=thought.text))

    def _room(self, ctx: Context, thought: Thought) -> int:
        """Tokens that a path through this thought may still have."""
        if not thought.text:
            return self._ceiling
        path = thought.path
        if path and path.text == thought.text and path.token_ids:
            return self._ceiling - len(path.prompt_ids) - len(path.token_ids)
        return self._ceiling - ctx.count_tokens(self.rendered + thought.text)

    def _child(self, thought: Thought, path: Path, most: int) -> Thought | None:
        """What one path adds; None where it adds nothing or was cut before its step was whole."""
        line, ended = path.text[len(thought.text) :].strip(), path.stop_reason != self._profile.step_end
        if not path.finished:
            # A step of the most tokens is one, and its line goes on in the next; a checker reads whole lines only.
            if self.checked or not line or path.tokens < most:
                return None
            ended = False
        if line:
            return self.step(thought, line, path.text, ended=ended)
        if ended and thought.steps:
            return Thought(thought.steps, path.text, path.text.strip(), done=True)
        return None

    def _read(self, path: Path) -> Path:
        """The path with its answer by steps, where what is read from whole paths would be their final form."""
        if not self._structured:
            return path
        value = find(path.text, marker=self._profile.answer_marker)
        return replace(path, answer=value and normalise(value))

    def _key(self, steps: tuple[str, ...], text: str, done: bool) -> str:
        return text.strip() if done or not self._checker else self._checker.state(steps)

    def _allowed(self, checker: Checker, thought: Thought) -> bool:
        if thought.done:
            return thought.path is not None and thought.path.answer is not None
        return checker.step_ok(thought.steps) and checker.outcome(thought.steps) is not False


def _joined(thought: Thought, path: Path) -> Path:
    """A path through a thought as one that was drawn in one go, so that whoever judges it sees all its tokens."""
    before = thought.path
    # Where a stop string ended inside a token, the tokens so far say more than the text.
    if before is None or path.prompt_ids != (*before.prompt_ids, *before.token_ids):
        return path
    return replace(
        path,
        prefill=before.prefill,
        prompt_ids=before.prompt_ids,
        token_ids=(*before.token_ids, *path.token_ids),
        logprobs=(*before.logprobs, *path.logprobs),
        tokens=before.tokens + path.tokens,
    )


FORM = """{problem}

A worked solution:
{steps}

Give its answer in the form that is asked for, and nothing else."""


Choose = Literal["best", "vote"]


async def choose_answer(ctx: Context, steps: Steps, ends: Sequence[Thought], choose: Choose) -> Answer:
    """The answer of these finished thoughts, proposed as the best so far; an empty one where there are none."""
    named = [end for end in ends if end.path and end.path.answer is not None]
    if not named:
        return max(ends, key=lambda end: end.value).answer if ends else Answer()
    best = max(named, key=lambda end: end.value)
    if choose == "best" or steps.solved(named):
        return ctx.propose(best.answer, best.value)
    voters = [(end.path, max(0.0, end.value)) for end in named if end.path for _ in range(end.draws)]
    paths, weights = [path for path, _ in voters], [weight for _, weight in voters]
    votes = await count_votes(ctx, paths, weights)
    ctx.note(votes=[[vote.answer, vote.count, round(vote.weight, 4)] for vote in votes])
    total = sum(weights)
    first = votes[0]
    path, share = await best_voter(ctx, paths, first.answer), first.weight / total if total else None
    return ctx.propose(Answer(path, first.answer, share, votes), first.weight)


def vote_settled(answer: Answer, remaining: int, confidence: float) -> bool:
    """Whether so many more answers (none: never) are not worth having, by Adaptive-Consistency's rule: weights count in
    units of the mean voter, and no answer to come is taken to outweigh the mean of the leader's."""
    whole = sum(vote.weight for vote in answer.votes)
    if not whole or not remaining:
        return False
    mean, lead = whole / sum(vote.count for vote in answer.votes), answer.votes[0]
    heaviest = max(1.0, lead.weight / lead.count / mean)
    return settled([vote.weight / mean for vote in answer.votes], remaining * heaviest, confidence)


async def final_answer(
    ctx: Context, steps: Steps, furthest: Thought, ends: Sequence[Thought], choose: Choose
) -> Answer:
    """The answer of a search that is over; one without an end takes its furthest thought to one first."""
    found = list(ends)
    if not found:
        async with ctx.span("finish") as here:
            last = await steps.finish(here, furthest)
        if last is None or not last.done:
            return await steps.in_requested_form(ctx, Answer(), (last or furthest).text)
        found = [last]
    answer = await choose_answer(ctx, steps, found, choose)
    return await steps.in_requested_form(ctx, answer, answer.path.text if answer.path else "")
