"""What a run comes to: the content a client gets, why it stopped, and exactly what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from reason_engine.runtime.run import Run
from reason_engine.runtime.stream_text import TextStream
from reason_engine.runtime.trace import Trace
from reason_engine.types import Answer, FinishReason, Passage, Path, Stopped, TokenLogprob, ToolCall, Usage


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of `solve`. `prompt_tokens` is the client's prompt, once; `usage` sums every internal call;
    `content_tokens` of `usage.completion` are in `content`; `logprobs` belong to `content`."""

    id: str
    content: str
    reasoning: str | None
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    answer: Answer
    stopped: Stopped
    usage: Usage
    usage_by_stage: Mapping[str, Usage]
    content_tokens: int
    prompt_tokens: int
    samples: int
    seconds: float
    trace: Trace
    logprobs: tuple[TokenLogprob, ...] = ()
    sources: tuple[Passage, ...] | None = None
    """What was retrieved, in the order of its numbers; None where nothing was to be."""
    filtered: str = ""
    """The operator's rule that stopped the answer."""


def fallback(run: Run, answer: Answer | None) -> Answer:
    """The answer with a path. Where the strategy gave none: the best proposal, else the most certain finished path,
    else the longest partial one; the last two with no confidence."""
    if answer is None and run.best:
        answer = run.best[1]
    if answer and answer.path:
        return answer
    # A step or a thought that ended where it was told to end is no finished answer.
    ends = (run.profile.step_end, run.engine.info.think_end)
    finished = [path for path in run.candidates if path.finished and path.stop_reason not in ends]
    # Ties (no log-probabilities known) go to the first path drawn.
    if finished:
        path = max(finished, key=lambda p: p.mean_logprob)
    elif run.candidates:
        path = replace(max(run.candidates, key=lambda p: len(p.text)), finish_reason="length")
    else:
        return answer or Answer()
    return Answer(path, path.answer, None, answer.votes if answer else ())


def conclude(run: Run, answer: Answer, texts: TextStream, stopped: Stopped, prompt_tokens: int) -> Outcome:
    """Fold a finished run into its outcome."""
    path = answer.path
    calls = run.engine.parse(path.text, prompt=path.prompt).tool_calls if path and run.problem.tools else ()
    texts.finish(path, called=bool(calls))
    content = texts.content
    finish: FinishReason = path.finish_reason if path else "length"
    if texts.stopped:
        finish = "stop"
    if calls:
        finish = "tool_calls"
    seconds = run.budget.seconds
    meta = {
        "id": run.id,
        "model": run.engine.info.name,
        "strategy": run.strategy,
        "seed": run.seed,
        "question": run.problem.asked,
        "answer": answer.value,
        "stopped": stopped,
        "seconds": round(seconds, 6),
    }
    return Outcome(
        id=run.id,
        content=content,
        reasoning=texts.reasoning,
        tool_calls=calls,
        finish_reason=finish,
        answer=answer,
        stopped=stopped,
        usage=sum(run.usage.values(), Usage()),
        usage_by_stage=dict(run.usage),
        content_tokens=_content_tokens(run, path, content),
        prompt_tokens=prompt_tokens,
        samples=run.samples,
        seconds=seconds,
        trace=Trace.from_events(run.log, meta),
        logprobs=_content_logprobs(path, content) if run.sampling.logprobs is not None else (),
        sources=None if run.problem.bare is None else run.problem.sources,
    )


def _content_tokens(run: Run, path: Path | None, content: str) -> int:
    if not path or not content:
        return 0
    if content == path.text:
        return path.tokens
    return min(path.tokens, len(run.prompts.prompt(content).ids))


def _content_logprobs(path: Path | None, content: str) -> tuple[TokenLogprob, ...]:
    if not path or not content:
        return ()
    start, at = path.text.rfind(content) - len(path.prefill), 0
    kept: list[TokenLogprob] = []
    for token in path.logprobs:
        end = at + len(token.token)
        if at < start + len(content) and end > start:
            kept.append(token)
        at = end
    return tuple(kept)


def stopped_by(run: Run, answer: Answer) -> Stopped:
    """Why the run ended: the first cut of its budget, a decision, or because it was done."""
    return run.budget.cut or cast(Stopped, "decided" if answer.decided else "done")


def numbered_sources(sources: Sequence[Passage]) -> list[dict[str, Any]]:
    """The sources as a trace notes them and as a client reads them, numbered as the prompt numbers them."""
    return [{"n": n, "source": p.source, "text": p.text} for n, p in enumerate(sources, 1)]
