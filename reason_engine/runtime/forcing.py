"""A path asked once more for its answer: continued, out of its thought if it is in one, by the opening of an answer and
the few tokens that follow it (`answering.opening`). Their tokens were leased when the path began."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace

from reason_engine.runtime.answering import forced_text, opening, probability
from reason_engine.runtime.drawn import PartialPath
from reason_engine.runtime.run import Run
from reason_engine.types import GenerateRequest, Path, Prompt, Sampling, TokenLogprob


@dataclass(frozen=True, slots=True)
class Forced:
    """What a forced answer adds to its path: `given`, then `text` of `tokens` generated tokens, whose geometric mean
    probability is `weight`."""

    given: str
    text: str
    tokens: int
    weight: float
    logprobs: tuple[TokenLogprob, ...] = ()


async def force(run: Run, path: Path, sampling: Sampling, stage: str) -> Forced | None:
    """Ask for the answer of this path within `sampling.max_tokens` tokens. None where nothing came."""
    asked, prompts = opening(run, path.text, path.prompt), run.prompts
    by_ids = run.engine.caps.continuation
    prompt = prompts.continued(path, asked.text) if by_ids else Prompt(path.prompt + path.text + asked.text)
    if len(prompt if isinstance(prompt, tuple) else prompts.prompt(prompt).ids) >= run.engine.info.context:
        return None
    how = replace(sampling, temperature=0.0, stop=asked.stop, include_stop=True, structured=None, thinking=None)
    request = GenerateRequest(run.request_id(), prompt, 1, how, run.adapter, search=run.id)
    drawn = PartialPath()
    left = run.budget.seconds_left
    chunks = run.engine.generate(request)
    try:
        async with asyncio.timeout(None if left is None else max(0.0, left)):
            async with aclosing(chunks):  # pyright: ignore[reportArgumentType]
                async for chunk in chunks:
                    drawn.add(chunk)
    except TimeoutError:
        run.budget.note("budget-seconds")
    finally:
        run.charge(stage, drawn.usage)
    shown = forced_text(drawn.text) if asked.text.endswith("{") else drawn.text
    if not shown.strip():
        return Forced("", "", drawn.tokens, 0.0) if drawn.tokens else None
    weight = probability(drawn.logprobs, shown)
    return Forced(asked.text, shown, drawn.tokens, weight, tuple(drawn.logprobs))
