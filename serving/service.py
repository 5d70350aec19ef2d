"""What the routes of one server share, passed to them explicitly, and its Prometheus series.

No label of a series is made of what a caller can choose freely."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from reason_engine.answers import Equality
from reason_engine.contracts import Engine, Health, Powers
from reason_engine.errors import EngineError
from reason_engine.knowledge import Library
from reason_engine.profile import Profile
from reason_engine.runtime.solve import Outcome
from reason_engine.runtime.trace import TraceRing
from reason_engine.serving.adapters import Adapters
from reason_engine.serving.guard.access import AdmissionGate
from reason_engine.serving.guard.content_guard import ContentGuard
from reason_engine.settings import Settings
from reason_engine.types import Usage


@dataclass(frozen=True)
class Service:
    """One model behind one HTTP application."""

    engine: Engine
    profile: Profile
    settings: Settings
    gate: AdmissionGate
    metrics: Metrics
    traces: TraceRing
    equality: Equality
    knowledge: Library | None
    """The operator's documents."""
    powers: Powers
    """What the operator lets verifiers do on this machine."""
    adapters: Adapters
    guard: ContentGuard | None = None
    """The operator's rules, where there are any."""
    created: int = field(default_factory=lambda: int(time.time()))  # noqa: TID251 - a date for clients

    @property
    def name(self) -> str:
        """The name under which clients ask for the base model."""
        return self.settings.served_name or self.engine.info.name

    async def health(self) -> Health:
        """The engine's state; dead where it cannot even be asked."""
        try:
            return await self.engine.health()
        except EngineError as error:
            return Health(ready=False, live=False, detail=str(error))


SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
BRANCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counts requests and what they cost. `strategy` labels are names of registered strategies."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()

        def count(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"reason_{name}", what, labels, registry=own)

        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"reason_{name}", what, registry=own)

        def histogram(name: str, what: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"reason_{name}", what, ("strategy",), buckets=buckets, registry=own)

        self.requests = count("requests", "requests by outcome", "strategy", "outcome")
        self.seconds = histogram("request_seconds", "duration of a request", SECONDS)
        self.branches = histogram("branches", "generated sequences of a request", BRANCHES)
        self.tokens = count("engine_tokens", "generated tokens: in the answer's content or not", "role")
        self.prompt_tokens = count("prompt_tokens", "prompt tokens of all internal calls")
        self.cached_tokens = count("cached_tokens", "of these, found in the prefix cache")
        self.drafted = count("draft_tokens", "drafted tokens that were right or wrong", "outcome")
        self.draft_failures = gauge("draft_failures", "requests whose drafter failed; they went on without")
        self.exhausted = count("budget_exhausted", "runs cut by their budget", "limit")
        self.rejections = count("rejections", "requests refused before any work", "reason")
        self.stops = count("guard_stops", "requests and answers that a rule of the operator's stopped", "rule", "where")
        self.trace_dropped = gauge("trace_dropped", "traces that left the ring")
        self.running = gauge("sequences_running", "sequences running in the engine")
        self.waiting = gauge("sequences_waiting", "sequences waiting in the engine")
        self.held = gauge("sequences_admitted", "sequences of admitted requests")
        self.generated = gauge("engine_generated_tokens", "the engine's own counter")
        self.upstream_up = Gauge(
            "reason_upstream_up", "whether an endpoint takes requests", ("upstream",), registry=own
        )
        self.upstream_running = Gauge(
            "reason_upstream_sequences_running", "sequences running at an endpoint", ("upstream",), registry=own
        )
        self.lag = gauge("event_loop_lag_seconds", "how late the event loop wakes")

    def answered(self, strategy: str, outcomes: list[Outcome], seconds: float) -> None:
        """Account for a request that got its answer."""
        self.requests.labels(strategy, "done").inc()
        self.seconds.labels(strategy).observe(seconds)
        for outcome in outcomes:
            self.branches.labels(strategy).observe(outcome.samples)
            self.tokens.labels("winner").inc(outcome.content_tokens)
            self.tokens.labels("discarded").inc(max(0, outcome.usage.completion - outcome.content_tokens))
            self.prompt_tokens.inc(outcome.usage.prompt)
            self.cached_tokens.inc(outcome.usage.cached)
            self.drafts(outcome.usage)
            if outcome.stopped.startswith("budget-"):
                self.exhausted.labels(outcome.stopped.removeprefix("budget-")).inc()

    def drafts(self, usage: Usage) -> None:
        """Account for what was drafted."""
        self.drafted.labels("accepted").inc(usage.draft_accepted)
        self.drafted.labels("rejected").inc(usage.draft_rejected)

    def unanswered(self, strategy: str, outcome: str) -> None:
        """Account for a request that was let in and got no answer: `cancelled`, `filtered`, `refused` or `error`."""
        self.requests.labels(strategy, outcome).inc()

    def refused(self, code: str) -> None:
        """Account for a request that was turned away; `code` is the error's code."""
        self.rejections.labels(code).inc()

    def stopped(self, rule: str, where: str) -> None:
        """Account for a request or an answer that a rule stopped; rules are named by the operator."""
        self.stops.labels(rule, where).inc()

    def text(self, health: Health, held: int, traces: TraceRing) -> bytes:
        """The exposition, with the process-wide series (Python, process, the engine's own `vllm:*`) after ours."""
        self.running.set(health.running)
        self.waiting.set(health.waiting)
        self.generated.set(health.generated_tokens)
        self.draft_failures.set(health.draft_failures)
        for one in health.replicas:
            self.upstream_up.labels(one.name).set(one.up)
            self.upstream_running.labels(one.name).set(one.running)
        self.held.set(held)
        self.trace_dropped.set(traces.dropped)
        return generate_latest(self.registry) + generate_latest(REGISTRY)
