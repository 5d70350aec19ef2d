"""Thoughts listed by one proposing prompt: G(p, s, k) by proposing, Yao et al. 2023, arXiv:2305.10601, section 3.2."""

from __future__ import annotations

import re
from dataclasses import replace

from reason_engine.runtime.context import Context
from reason_engine.runtime.reading import read_answer
from reason_engine.strategies._steps import Steps
from reason_engine.strategies._tree import Thought
from reason_engine.strategies._values import filled
from reason_engine.types import Path


async def proposed(
    ctx: Context, steps: Steps, thought: Thought, k: int, *, prompt: str | None, heat: float, most: int
) -> list[Thought]:
    """Up to k legal thoughts, one a line of what the model lists. `prompt` None: the profile's or the general one."""
    asked = filled(prompt or ctx.run.profile.propose_prompt or PROPOSE, ctx, steps.state(thought))
    (path,) = await ctx.sample(asked, max_tokens=most * k, temperature=heat, stage="propose")
    lines = [re.sub(r"^\s*(?:[-*]|\d+[.)])\s+", "", line).strip() for line in path.text.split("\n")]
    return steps.legal([_grown(ctx, steps, thought, path, line) for line in lines if line][:k])


def _grown(ctx: Context, steps: Steps, thought: Thought, path: Path, line: str) -> Thought:
    text = f"{thought.text}{line}{ctx.run.profile.step_end}"
    grown = steps.step(thought, line, text)
    if not grown.done:
        return grown
    # The proposing path stands for the answer it proposed.
    return replace(
        grown, path=replace(path, text=text, prefill=thought.text, answer=read_answer(ctx.run, text))
    )


PROPOSE = """{problem}

Steps so far:
{state}

List several different possible next steps, one a line, nothing else. A line that gives the final answer starts with \
'Answer:'."""
