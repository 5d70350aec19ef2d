"""The state of one call of `solve`: what it is about, its account, its trace, and the paths that were drawn for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from reason_engine.answers import AnswerSpec, Equality
from reason_engine.contracts import Checker, Engine, Powers, Retriever
from reason_engine.profile import Profile
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.forecast import Forecast
from reason_engine.runtime.prompts import PromptCache
from reason_engine.runtime.stream_text import Borders
from reason_engine.runtime.trace import Event, Opened
from reason_engine.types import Answer, Path, Problem, Sampling, Usage

PLAIN = frozenset({"direct"})
"""Strategies whose text is all content: no answer marker is looked for."""
WHOLE_TEXT = frozenset({"code", "json"})
"""Kinds whose answer is no line of the text: nothing of it is held back for a marker."""


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
    spec: AnswerSpec = field(default_factory=AnswerSpec)
    """The kind of answer that the question wants; the first wave of paths may correct it, unless it is `given`."""
    given: bool = False
    asked: AnswerSpec | None = None
    """What the prompts ask for where a first wave corrected `spec`: later waves are asked as the first one was."""
    force: bool = True
    """Whether paths without an answer are asked once more."""
    checker: Checker | None = None
    knowledge: Retriever | None = None
    halted: Callable[[], bool] = lambda: False
    """Whether the client is to get nothing more of it."""
    powers: Powers = field(default_factory=Powers)
    temperature: float | None = None
    adapter: str | None = None
    think: bool | None = None
    thought: int | None = None
    """Tokens that a thought may take before fewer paths are drawn instead; None: the usual ones."""
    usage: dict[str, Usage] = field(default_factory=dict[str, Usage])
    candidates: list[Path] = field(default_factory=list[Path])
    finals: dict[int, Path] = field(default_factory=dict[int, Path])
    """The paths that were to be answers, by node."""
    log: list[Event] = field(default_factory=list[Event])
    forecast: Forecast = field(default_factory=Forecast)
    """How long further whole paths would take."""
    best: tuple[float, Answer] | None = None
    nodes: int = 0
    requests: int = 0
    samples: int = 0
    left_out: int = 0
    """Paths that were to be drawn and were not begun, since they would not have ended in time."""

    @property
    def plain(self) -> bool:
        """Whether the whole text of a path is its content."""
        return self.strategy in PLAIN

    @property
    def unread(self) -> int:
        """Finished paths that hold no answer of the kind that was asked for."""
        if self.spec.kind == "free":
            return 0
        return sum(path.answer is None and not path.cut for path in self.finals.values())

    @property
    def cut(self) -> int:
        """Paths that a limit ended before they had answered."""
        return sum(path.cut for path in self.finals.values())

    def emit(self, event: Event) -> None:
        """Publish an event. Deltas are not kept: every path's `sampled` event has its whole text."""
        if event.kind != "delta":
            self.log.append(event)
        self.publish(event)

    def open(self, opened: Opened) -> int:
        """A new node of the trace, opened now; returns the number that it is given."""
        node, self.nodes = self.nodes, self.nodes + 1
        self.emit(replace(opened, node=node, at=self.budget.seconds))
        return node

    def request_id(self) -> str:
        """A name for the next engine request, unique in the server since the run's id is."""
        self.requests += 1
        return f"{self.id}-{self.requests}"

    def charge(self, stage: str, usage: Usage) -> None:
        """Account for tokens under a stage."""
        self.usage[stage] = self.usage.get(stage, Usage()) + usage

    def keep(self, paths: Sequence[Path], *, final: bool) -> None:
        """Paths that a cut run may end with; `final`: that were to be answers."""
        self.candidates.extend(paths)
        if final:
            self.finals.update((path.node, path) for path in paths)

    def reread(self, paths: Sequence[Path]) -> None:
        """Paths whose answers were read again, in place of what was kept of them."""
        new = {path.node: path for path in paths}
        self.candidates = [new.get(path.node, path) for path in self.candidates]
        self.finals.update((node, path) for node, path in new.items() if node in self.finals)

    def borders(self, prompt: str) -> Borders:
        """Where reasoning ends in the paths of this rendered prompt."""
        info = self.engine.info
        whole = self.plain or self.problem.structured is not None or self.spec.kind in WHOLE_TEXT
        marker = None if whole else self.profile.answer_marker
        calls = info.tool_start if self.problem.tools else None
        stop = (*self.sampling.stop, info.answer_end) if info.answer_end else self.sampling.stop
        if not (info.thinks or info.thinking(self.think)):
            # a thought that it begins all the same is one
            return Borders(info.think_start, info.think_end, marker, False, stop, calls, info.answer_starts)
        thinking = prompt.rstrip().endswith(info.think_start)
        return Borders(info.think_start, info.think_end, None, thinking, stop, calls, info.answer_starts)
