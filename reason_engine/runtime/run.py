"""What one call of `solve` owns: shared by every context of that call, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from reason_engine.answers import Equality
from reason_engine.contracts import Checker, Engine, Powers, Retriever, Verifier
from reason_engine.profile import Profile
from reason_engine.runtime.budget import Budget
from reason_engine.runtime.events import Event, Opened
from reason_engine.types import Answer, Path, Problem, Sampling, Usage


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
    verifier: Verifier | None = None
    verifier_name: str = ""
    alternatives: int | None = None
    """Likeliest alternatives to record at each token, where the verifier reads them."""
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

    def total(self) -> Usage:
        """All stages together."""
        total = Usage()
        for usage in self.usage.values():
            total += usage
        return total
