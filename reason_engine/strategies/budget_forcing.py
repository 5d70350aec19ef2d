"""Budget forcing: think longer than the model would, or no longer than you can wait.

s1, Muennighoff et al. 2025, arXiv:2501.19393, section 3.1. To lengthen: where the model ends its thinking, the end is
suppressed and a word that makes it go on ("Wait") appended. To shorten: at a cap, thinking is ended for it and the
answer asked for. The end is the end-of-thinking mark; a model without one ends with its answer and goes on after that.
Departures: both work on token ids, by continuing the path, on every engine that can; vLLM's own thinking budget only
shortens, and only with a reasoning parser chosen at start. What is appended counts as prompt, never as thinking. A
round that gives no answer leaves the one before it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Self

from pydantic import Field, model_validator

from reason_engine.errors import ContextLengthExceeded
from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.types import Answer, Draw, Path, Problem


@strategies.register("budget-forcing")
class BudgetForcing(Strategy):
    """One path, made to think on `rounds` times, or for `min_tokens`; cut at `max_thinking`."""

    summary: ClassVar[str] = "One path, made to think on or cut short"
    paper: ClassVar[str] = "arXiv:2501.19393"

    rounds: int = Field(1, ge=0, le=64, description="ends of thinking that are suppressed")
    min_tokens: int | None = Field(
        None, ge=1, le=1_000_000, description="tokens of thinking before which every end is suppressed"
    )
    max_thinking: int | None = Field(
        None, ge=1, le=1_000_000, description="tokens of thinking after which the answer is forced"
    )
    wait: str | None = Field(None, min_length=1, max_length=200, description="what is appended instead of the end")

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if self.min_tokens and self.max_thinking and self.min_tokens > self.max_thinking:
            raise ValueError("min_tokens is more than max_thinking")
        return self

    @property
    def wants(self) -> frozenset[str]:
        return frozenset({"continuation"})

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Think, think on, then answer."""
        end = ctx.info.think_end if ctx.thinks else ""
        wait = self.wait or ctx.profile.wait
        stop, temperature = (end,) if end else (), self.sampling_temperature(ctx)
        think = Draw(temperature=temperature, stop=stop, stage="think", final=not end)
        first = replace(think, max_tokens=self.max_thinking, final=not end or bool(problem.tools))
        (path,) = await ctx.sample(ctx.format_prompt("steps"), first)
        spent, waits, best = path.tokens, 0, Answer() if end else _proposed(ctx, path)
        while path.finished and self._suppresses(waits, spent) and (left := self._left(ctx, spent)) != 0:
            async with ctx.span(f"wait {waits + 1}") as here:
                more = await _extended(here, _before_mark(path, end), wait, replace(think, max_tokens=left))
            if more is None:
                break
            path, waits, spent = more, waits + 1, spent + more.tokens
            if not end:
                last = _continuation(path, ctx.opening)
                best = _proposed(ctx, last) if _value(ctx, last) else best
        forced = not path.finished and (not end or not path.text.endswith(end))
        ctx.note(waits=waits, thinking=spent, forced=forced)
        if end:
            mark = "" if path.text.endswith(end) else ctx.info.think_exit
        elif forced and ctx.profile.answer_marker:
            mark = f"\n{ctx.profile.answer_marker}"
        else:
            return best
        return await self._answered(ctx, path, mark, spent) or best

    async def _answered(self, ctx: Context, path: Path, mark: str, spent: int) -> Answer | None:
        """The answer after the mark that ends the thinking; None where there is no room for it."""
        whole = ctx.max_tokens
        if whole and spent >= whole:
            return None
        async with ctx.span("answer") as here:
            left, temperature = whole - spent if whole else None, self.sampling_temperature(ctx)
            draw = Draw(max_tokens=left, temperature=temperature, stage="answer", final=True)
            last = await _extended(here, path, mark, draw)
        if last is None:
            return None
        given = ctx.opening or ("" if ctx.info.thinks else mark.lstrip())
        return _proposed(ctx, _continuation(last, given))

    def _suppresses(self, waits: int, spent: int) -> bool:
        """Whether this end is suppressed."""
        return waits < self.rounds or (spent < (self.min_tokens or 0) and waits < MOST_WAITS)

    def _left(self, ctx: Context, spent: int) -> int | None:
        """Tokens that thinking may still take; None where nothing bounds it."""
        bounds = [bound for bound in (self.max_thinking, ctx.max_tokens) if bound]
        return max(min(bounds) - spent, 0) if bounds else None


async def _extended(ctx: Context, path: Path, insert: str, draw: Draw) -> Path | None:
    """The path gone on; None where the context is full."""
    try:
        (more,) = await ctx.extend(path, draw, insert)
    except ContextLengthExceeded:
        return None
    return more


def _before_mark(path: Path, end: str) -> Path:
    """The path before the mark that ended its thinking."""
    return replace(path, text=path.text.removesuffix(end)) if end else path


def _continuation(path: Path, given: str = "") -> Path:
    """What a continued path added, as a path of its own, with the `given` end of what stood before it."""
    begin = len(path.prefill) - len(given)
    return replace(path, prompt=path.prompt + path.text[:begin], text=path.text[begin:], prefill=given)


def _value(ctx: Context, path: Path) -> str | None:
    return ctx.read_answer(path.text, tools=True)


def _proposed(ctx: Context, path: Path) -> Answer:
    """A path's answer, proposed as the best so far where it gives one."""
    answer = Answer(path, _value(ctx, path))
    return ctx.propose(answer, 0.0) if answer.value is not None else answer


MOST_WAITS = 64
