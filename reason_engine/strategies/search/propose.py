"""Proposes steps: the model lists several, one a line (Yao et al. 2023, arXiv:2305.10601, section 3.2)."""

from __future__ import annotations

import re
from dataclasses import replace

from reason_engine.profile import fill
from reason_engine.runtime.context import Context
from reason_engine.strategies.search.steps import Steps
from reason_engine.strategies.search.tree import Thought
from reason_engine.types import Draw, Path


async def propose(ctx: Context, steps: Steps, thought: Thought, k: int, prompt: str | None) -> list[Thought]:
    """Up to k legal thoughts, one a line of what the model lists after the prompt, else the profile's."""
    prompt = prompt or ctx.profile.propose_prompt or PROPOSE
    shown = {"problem": ctx.problem.question, "state": steps.state(thought)}
    draw = Draw(max_tokens=steps.most * k, temperature=steps.draws.temperature, stage="propose")
    (path,) = await ctx.sample(fill(prompt, shown), draw)
    lines = [re.sub(r"^\s*(?:[-*]|\d+[.)])\s+", "", line).strip() for line in ctx.parse(path).content.split("\n")]
    return steps.rules.legal([_grown(ctx, steps, thought, path, line) for line in lines if line][:k])


def _grown(ctx: Context, steps: Steps, thought: Thought, path: Path, line: str) -> Thought:
    thought = thought if thought.text else steps.without_thought
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
