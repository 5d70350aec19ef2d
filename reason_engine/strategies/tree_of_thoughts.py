"""Tree of thoughts: grow partial solutions step by step, value each state, follow the promising ones.

Yao et al. 2023, arXiv:2305.10601: thought generation by sampling or by one proposing prompt (section 3.2), evaluation
by value or by vote (3.3), breadth first or depth first with pruning and backtracking (3.4).
Departures: the value is the model's probability of `value_options[0]` against the other option at one token, not a
sampled word; equal states are merged; where the profile knows the task, its checker drops illegal lines and tells
whether a finished answer is right (it never proposes or looks ahead), and a right one ends the search; when nothing
promising is left, depth first samples more steps from the best state it has visited, until `visits` are spent.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from reason_engine.profile import Profile, fill
from reason_engine.runtime.context import Context
from reason_engine.strategies import Strategy, strategies
from reason_engine.strategies.search.steps import Steps, final_answer
from reason_engine.strategies.search.tree import Thought, keep_best, merge, most_promising, push, unseen
from reason_engine.strategies.search.values import By, Values, verifier_for
from reason_engine.types import Aggregate, Answer, Draw, Path, Problem


@strategies.register("tree-of-thoughts")
class TreeOfThoughts(Strategy):
    """Search over steps, next to the engine: every step continues on cached tokens."""

    summary: ClassVar[str] = "A search over steps that values partial solutions"
    paper: ClassVar[str] = "arXiv:2305.10601"
    usual_temperature: ClassVar[float] = 1.0

    search: Literal["breadth", "depth"] = Field("depth", description="breadth first, or depth first with backtracking")
    k: int = Field(8, ge=1, le=64, description="next steps to generate from each state")
    breadth: int = Field(1, ge=1, le=64, description="breadth first: states kept at each level")
    depth: int = Field(16, ge=1, le=64, description="most steps of a solution, its answer line included")
    visits: int = Field(16, ge=1, le=1024, description="depth first: most states to expand")
    threshold: float = Field(0.05, ge=0, lt=1, description="depth first: states of lower value are pruned")
    generate: Literal["sample", "propose"] = Field("sample", description="sample steps, or ask for a list of them")
    evaluate: By | None = Field(
        None, description="what ranks states; unset: the named verifier of steps, else the model's value"
    )
    aggregate: Aggregate = Field("min", description="verifier: how the scores of several steps become one")
    step_tokens: int = Field(128, ge=1, le=4096, description="most tokens of one step")
    propose_prompt: str | None = Field(None, max_length=8192, description="literal {problem} and {state}")
    value_prompt: str | None = Field(None, max_length=8192, description="literal {problem} and {state}")

    @property
    def width(self) -> int:
        return self.k * (self.breadth if self.search == "breadth" else 1)

    @property
    def wants(self) -> frozenset[str]:
        by_model = self.evaluate == "value" or (self.evaluate is None and self.verifier is None)
        return frozenset({"choose"} if by_model else ())

    @property
    def judges_steps(self) -> bool:
        return self.evaluate in (None, "verifier")

    def judge_on(self, profile: Profile, *, checked: bool) -> tuple[str, dict[str, object]] | None:
        return verifier_for(self.evaluate, self.judge, profile, checked=checked)

    async def run(self, problem: Problem, ctx: Context) -> Answer:
        """Search; the best finished thought is the answer."""
        steps = Steps(ctx, temperature=self.sampling_temperature(ctx), most=self.step_tokens)
        by = self.evaluate or ("verifier" if ctx.verifier else "value")
        values = Values(ctx, steps, by, aggregate=self.aggregate, prompt=self.value_prompt, votes=self.k)
        ctx.note(evaluate=by, verifier=ctx.verifier_name or None)
        ends = await (self._breadth_first if self.search == "breadth" else self._depth_first)(ctx, steps, values)
        return await final_answer(ctx, steps, values.furthest, ends, "best")

    async def _breadth_first(self, ctx: Context, steps: Steps, values: Values) -> list[Thought]:
        level, ends = [Thought()], list[Thought]()
        for depth in range(1, self.depth + 1):
            async with ctx.span(f"level {depth}") as here:
                grown = await here.gather_within_budget(lambda t: self._expand(here, steps, *t), list(enumerate(level)))
                valued = await values.of(here, merge([t for children in grown for t in children or ()]))
                done = [thought for thought in valued if thought and thought.done]
                ends += done
                level = keep_best([thought for thought in valued if thought and not thought.done], self.breadth)
                here.note(kept=[thought.key for thought in level])
            if steps.solved(done) or not level or len(ends) >= self.breadth:
                break
        return ends

    async def _depth_first(self, ctx: Context, steps: Steps, values: Values) -> list[Thought]:
        stack, ends, visited = [Thought(value=1.0)], list[Thought](), dict[Thought, int]()
        for visit in range(1, self.visits + 1):
            thought = stack.pop() if stack else most_promising(visited)
            visited[thought] = visited.get(thought, 0) + 1
            async with ctx.span(f"visit {visit}") as here:
                seen = {known.key for known in visited}
                grown = unseen(merge(await self._grow(here, steps, thought)), seen)
                children = [child for child in await values.of(here, grown) if child]
                here.note(depth=thought.depth, children=[[child.key, round(child.value, 4)] for child in children])
            done = [child for child in children if child.done]
            ends += done
            # Without a checker the first finished thought is the end: nothing could tell a better one.
            if steps.solved(done) or (done and not steps.checked):
                break
            deeper = [child for child in children if not child.done and child.depth < self.depth]
            stack = push(stack, deeper, self.threshold)
        return ends

    async def _expand(self, ctx: Context, steps: Steps, number: int, thought: Thought) -> list[Thought]:
        async with ctx.span(f"state {number}") as here:
            return await self._grow(here, steps, thought)

    async def _grow(self, ctx: Context, steps: Steps, thought: Thought) -> list[Thought]:
        """Up to k legal thoughts: sampled, or one a line of what the model lists (proposing, section 3.2)."""
        if self.generate == "sample":
            return await steps.grow(ctx, thought, self.k)
        prompt = self.propose_prompt or ctx.profile.propose_prompt or PROPOSE
        shown = {"problem": ctx.problem.question, "state": steps.state(thought)}
        draw = Draw(max_tokens=steps.most * self.k, temperature=steps.temperature, stage="propose")
        (path,) = await ctx.sample(fill(prompt, shown), draw)
        lines = [re.sub(r"^\s*(?:[-*]|\d+[.)])\s+", "", line).strip() for line in path.text.split("\n")]
        return steps.legal([_grown(ctx, steps, thought, path, line) for line in lines if line][: self.k])


def _grown(ctx: Context, steps: Steps, thought: Thought, path: Path, line: str) -> Thought:
    text = f"{thought.text}{line}{ctx.profile.step_end}"
    grown = steps.step(thought, line, text)
    if grown.done:  # the proposing path stands for the answer it proposed
        path = replace(path, text=text, prefill=thought.text, answer=ctx.read_answer(text))
    return replace(grown, path=path) if grown.done else grown


PROPOSE = """{problem}

Steps so far:
{state}

List several different possible next steps, one a line, nothing else. A line that gives the final answer starts with \
'Answer:'."""
