"""A path asked once more for its answer: continued, out of its thought if it is in one, by the opening of an answer and
the few tokens that follow it (`answering.opening`); or, where the engine goes on with nothing that was begun, in one
more short turn. Their tokens were leased when the path began."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace

from reason_engine import answers
from reason_engine.runtime.answering import Opening, forced_text, last_turn, opening, probability
from reason_engine.runtime.drawn import PartialPath
from reason_engine.runtime.run import Run
from reason_engine.types import GenerateRequest, Message, Path, Prompt, Sampling, TokenLogprob


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
    asked, prompts, caps = opening(run, path.text, path.prompt), run.prompts, run.engine.caps
    how = replace(sampling, temperature=0.0, stop=asked.stop, include_stop=True, structured=None, thinking=None)
    if not (caps.continuation or caps.prefill):
        return await _in_a_turn(run, path, asked, replace(how, stop=(), include_stop=False), stage)
    added = asked.text
    prompt = prompts.continued(path, added) if caps.continuation else Prompt(path.prompt + path.text + added)
    drawn = await _few_tokens(run, prompt, how, stage)
    if drawn is None:
        return None
    shown = forced_text(drawn.text) if added.endswith("{") else drawn.text
    if not shown.strip():
        return Forced("", "", drawn.tokens, 0.0) if drawn.tokens else None
    weight = probability(drawn.logprobs, shown)
    return Forced(added, shown, drawn.tokens, weight, tuple(drawn.logprobs))


async def _in_a_turn(run: Run, path: Path, asked: Opening, how: Sampling, stage: str) -> Forced | None:
    """Where an engine does not go on with a begun answer: the path as a turn of the model's, and one more of the user's
    that asks for the answer alone. What is read there stands in the path as if it had gone on with the opening."""
    prompts, parsed = run.prompts, run.engine.parse(path.text, prompt=path.prompt)
    work = parsed.content.strip() or (parsed.reasoning or "").strip()
    turns = (*run.problem.turns(), Message("assistant", work), Message("user", last_turn(run.spec)))
    think = False if run.engine.info.thinks else run.think
    prompt = prompts.prompt(prompts.render(turns, think=think))
    drawn = await _few_tokens(run, prompt, how, stage) if work else None
    if drawn is None:
        return None
    found = answers.read(run.engine.parse(drawn.text, prompt=prompt).content, run.spec)
    if found is None:
        return Forced("", "", drawn.tokens, 0.0) if drawn.tokens else None
    weight = probability(drawn.logprobs, drawn.text)
    shown = found.value + ("}" if asked.text.endswith("{") else "")
    return Forced(asked.text, shown, drawn.tokens, weight, tuple(drawn.logprobs))


async def _few_tokens(run: Run, prompt: Prompt | tuple[int, ...], how: Sampling, stage: str) -> PartialPath | None:
    """What follows this prompt until the deadline; None where the context has no room for it."""
    ids = prompt if isinstance(prompt, tuple) else run.prompts.prompt(prompt).ids
    if len(ids) >= run.engine.info.context:
        return None
    request = GenerateRequest(run.request_id(), prompt, 1, how, run.adapter, search=run.id)
    drawn, left = PartialPath(), run.budget.seconds_left
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
    return drawn
