"""A checked request, and the run of its choices under one budget.

Everything that can be refused is refused here before anything reaches the engine.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from reason_engine.errors import CapabilityMissing, first_error
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.events import Event
from reason_engine.runtime.outcome import Outcome
from reason_engine.runtime.solve import solve
from reason_engine.runtime.stream_text import Piece
from reason_engine.serving.admin.adapters import Loaded
from reason_engine.serving.api.errors import failure
from reason_engine.serving.api.messages import read_messages
from reason_engine.serving.api.pick import Picked, pick, split_model
from reason_engine.serving.api.prompts import check_length, sampling_of, structured_of
from reason_engine.serving.api.schema import ChatRequest
from reason_engine.serving.guard.content_guard import asked_texts, unasked
from reason_engine.serving.guard.limits import check_width, limits_of
from reason_engine.serving.service import Service
from reason_engine.types import Limits, Problem, Sampling

Publish = Callable[[Event], None]
Say = Callable[[Piece], None]


@dataclass(frozen=True, slots=True)
class Job:
    """A checked request. `width` is the most sequences that it has in the engine at once."""

    id: str
    model: str
    body: ChatRequest
    picked: Picked
    problem: Problem
    sampling: Sampling
    limits: Limits
    adapter: str | None
    n: int
    width: int
    seed: int
    think: bool | None
    exclude: bool
    caller: str | None = None
    """The label that the operator's rules give the key."""
    created: int = field(default_factory=lambda: int(time.time()))  # noqa: TID251 - a date


def prepare(service: Service, body: ChatRequest, caller: str | None = None) -> Job:
    """Everything that is known before the engine is asked. `caller`: whose rules hold. Raises RequestError."""
    engine, settings = service.engine, service.settings
    adapter, suffix = split_model(body.model, service.name, service.adapters.names())
    picked = pick(body.reasoning, suffix, body.reasoning_effort, settings.strategy)
    history, question, tail = read_messages(body.messages)
    structured = structured_of(body, engine.caps)
    if body.logprobs and engine.caps.logprobs < (body.top_logprobs or 0):
        most = engine.caps.logprobs
        raise CapabilityMissing(
            "logprobs: this engine reports none"
            if most < 0
            else f"top_logprobs: this engine reports at most {most}",
            param="logprobs" if most < 0 else "top_logprobs",
        )
    n = body.n or 1
    switch = (body.chat_template_kwargs or {}).get("enable_thinking")
    return Job(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        model=body.model or service.name,
        body=body,
        picked=picked,
        problem=Problem(
            question,
            history,
            tuple(tool.model_dump(exclude_none=True) for tool in body.tools or ())
            if body.tool_choice != "none"
            else (),
            body.tool_choice,
            structured,
            tail=tail,
        ),
        sampling=sampling_of(body, engine.info.context),
        limits=limits_of(body.budget, settings),
        adapter=adapter,
        n=n,
        width=check_width(n, picked.strategy, settings),
        seed=secrets.randbits(31) if body.seed is None else body.seed,
        think=picked.think if picked.think is not None else switch,
        exclude=picked.exclude or body.include_reasoning is False,
        caller=caller,
    )


async def run(
    service: Service,
    job: Job,
    publish: Callable[[int], Publish | None] = lambda index: None,
    say: Callable[[int], Say | None] = lambda index: None,
    end: Callable[[int, Outcome], None] = lambda index, outcome: None,
) -> list[Outcome]:
    """Run the strategy once a choice, together, under one budget. Raises what `solve` raises, ungrouped."""
    strategy, metrics = job.picked.strategy, service.metrics

    async def one(index: int, budget: Budget, used: Loaded) -> Outcome:
        screen = service.guard.screen(job.caller, say(index), publish(index))
        outcome = await solve(
            strategy,
            job.problem,
            service.engine,
            profile=used.profile or service.profile,
            limits=budget,
            sampling=job.sampling,
            temperature=job.body.temperature,
            seed=job.seed + index,
            adapter=used.name,
            think=job.think,
            equality=service.equality,
            knowledge=service.guard.sifted(job.caller, service.knowledge),
            powers=service.powers,
            run_id=_run_id(job, index),
            publish=screen.publish,
            say=screen.say,
            halted=screen.halted,
        )
        return finished(index, await screen.close(outcome, service.engine))

    def finished(index: int, outcome: Outcome) -> Outcome:
        service.traces.put(outcome.id, outcome.trace)
        end(index, outcome)
        return outcome

    def refused(index: int, rule: str) -> Outcome:
        message = service.guard.message
        if message and (tell := say(index)):
            tell(Piece("content", message))
        return finished(index, unasked(_run_id(job, index), rule, message))

    with service.gate.hold(job.width), service.adapters.use(job.adapter) as used:
        started = time.monotonic()
        try:
            await check_length(job.problem, service.engine)
            asked = asked_texts(job.problem, job.body.model_dump(exclude_none=True))
            if rule := await service.guard.stops(job.caller, asked):
                metrics.failed(job.picked.name, "filtered")
                return [refused(index, rule) for index in range(job.n)]
            budget = Budget(job.limits)
            async with asyncio.TaskGroup() as group:
                over = group.create_task(service.gate.over())
                tasks = [group.create_task(one(index, budget, used)) for index in range(job.n)]
                await asyncio.wait(tasks)
                over.cancel()
        except asyncio.CancelledError:
            metrics.failed(job.picked.name, "cancelled")
            raise
        except Exception as error:  # ungroup: what failed first is what the client hears of
            cause = first_error(error)
            wrong = failure(cause).status < 500
            metrics.failed(job.picked.name, "refused" if wrong else "error")
            raise cause from None
        outcomes = [task.result() for task in tasks]
        metrics.done(job.picked.name, outcomes, time.monotonic() - started)
        return outcomes


def _run_id(job: Job, index: int) -> str:
    return job.id if index == 0 else f"{job.id}-{index}"
