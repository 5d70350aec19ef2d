"""What one call of `solve` owns: shared by every context of that call, and by nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from reason_engine.answers import Equality, find, normalise
from reason_engine.contracts import Checker, Engine, Powers, Retriever
from reason_engine.profile import Profile
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.events import Event, Opened
from reason_engine.runtime.prompts import PromptCache
from reason_engine.runtime.stream_text import Borders
from reason_engine.types import Answer, Path, Problem, Sampling, Usage

PLAIN = frozenset({"direct"})
"""Strategies whose text is all content: no answer marker is looked for."""


@dataclass
class Run:
    """State of one run. `sampling.max_tokens` 0 means the rest of the context; `temperature` is the request's own."""

    id: str
    engine: Engine
    problem: Problem
    profile: Profile
    budget: Budget
    sampling: Sampling
    strategy: str
    seed: int
    publish: Callable[[Event], None]
    equality: Equality
    prompts: PromptCache
    checker: Checker | None = None
    knowledge: Retriever | None = None
    halted: Callable[[], bool] = lambda: False
    """Whether the client is to get nothing more of it."""
    powers: Powers = field(default_factory=Powers)
    temperature: float | None = None
    adapter: str | None = None
    think: bool | None = None
    usage: dict[str, Usage] = field(default_factory=dict[str, Usage])
    candidates: list[Path] = field(default_factory=list[Path])
    log: list[Event] = field(default_factory=list[Event])
    best: tuple[float, Answer] | None = None
    nodes: int = 0
    requests: int = 0
    samples: int = 0

    @property
    def plain(self) -> bool:
        """Whether the whole text of a path is its content."""
        return self.strategy in PLAIN

    def emit(self, event: Event) -> None:
        """Publish an event. Deltas are not kept: every path's `sampled` event has its whole text."""
        if event.kind != "delta":
            self.log.append(event)
        self.publish(event)

    def open(
        self,
        parent: int | None,
        name: str,
        *,
        path: bool = False,
        stage: str = "",
        prompt: str = "",
        prefill: str = "",
        live: bool = False,
    ) -> int:
        """A new node of the trace; returns its number."""
        node, self.nodes = self.nodes, self.nodes + 1
        role = "path" if path else "span"
        self.emit(Opened(node, parent, name, role, stage, prompt, prefill, live, self.budget.seconds))
        return node

    def request_id(self) -> str:
        """A name for the next engine request, unique in the server since the run's id is."""
        self.requests += 1
        return f"{self.id}-{self.requests}"

    def charge(self, stage: str, usage: Usage) -> None:
        """Account for tokens under a stage."""
        self.usage[stage] = self.usage.get(stage, Usage()) + usage

    def read_answer(self, text: str, *, tools: bool = False) -> str | None:
        """The answer that a vote counts; None where the text gives none.

        A tool call counts as its name and arguments, a JSON answer as its canonical text, an answer of a task with a
        checker as its text, any other as `answers.find` and `answers.normalise` read it.
        """
        parsed = self.engine.parse(text)
        if tools and parsed.tool_calls:
            calls = [[call.name, _canonical(call.arguments)] for call in parsed.tool_calls]
            return json.dumps(calls, sort_keys=True)
        if self.problem.structured is not None:
            return _canonical(parsed.content.strip()) or None
        return read_value(parsed.content, self.profile.answer_marker, exact=self.checker is not None)

    def borders(self, prompt: str) -> Borders:
        """Where reasoning ends in the paths of this rendered prompt."""
        info = self.engine.info
        marker = None if self.plain or self.problem.structured else self.profile.answer_marker
        return Borders(
            info.think_start if info.thinks else None,
            info.think_end if info.thinks else None,
            None if info.thinks else marker,
            info.thinks and prompt.rstrip().endswith(info.think_start),
            self.sampling.stop,
            info.tool_start if self.problem.tools else None,
        )


def read_value(content: str, marker: str | None, *, exact: bool, whole: bool = False) -> str | None:
    """The answer in a content, normalised unless it is `exact` text; None where there is none. `whole`: a content
    without a marked answer is one itself."""
    value = find(content, marker)
    if value is None and whole:
        value = content.strip() or None
    if value is None:
        return None
    return " ".join(value.split()) if exact else normalise(value)


def _canonical(text: str) -> str:
    """JSON in one spelling; any other text as it is."""
    try:
        return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False)
    except ValueError:
        return text
