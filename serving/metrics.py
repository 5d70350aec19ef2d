"""Prometheus series of one server, in a registry of its own. No label is made of what a caller can choose freely."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from reason_engine.contracts import Health
from reason_engine.runtime.solve import Outcome
from reason_engine.runtime.trace import TraceRing
from reason_engine.types import Usage

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
BRANCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counts requests and what they cost. `strategy` labels are names of registered strategies."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"reason_{name}", what, labels, registry=own)

        def gauge(name: str, what: str) -> Gauge:
            return Gauge(f"reason_{name}", what, registry=own)

        def histogram(name: str, what: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"reason_{name}", what, ("strategy",), buckets=buckets, registry=own)

        self.requests = counter("requests", "requests by outcome", "strategy", "outcome")
        self.seconds = histogram("request_seconds", "duration of a request", SECONDS)
        self.branches = histogram("branches", "generated sequences of a request", BRANCHES)
        self.tokens = counter("engine_tokens", "generated tokens: in the answer's content or not", "role")
        self.prompt_tokens = counter("prompt_tokens", "prompt tokens of all internal calls")
        self.cached_tokens = counter("cached_tokens", "of these, found in the prefix cache")
        self.drafted = counter("draft_tokens", "drafted tokens that were right or wrong", "outcome")
        self.draft_failures = gauge("draft_failures", "requests whose drafter failed; they went on without")
        self.exhausted = counter("budget_exhausted", "runs cut by their budget", "limit")
        self.rejections = counter("rejections", "requests refused before any work", "reason")
        self.stops = counter(
            "guard_stops", "requests and answers that a rule of the operator's stopped", "rule", "where"
        )
        self.trace_dropped = gauge("trace_dropped", "traces that left the ring")
        self.running = gauge("sequences_running", "sequences running in the engine")
        self.waiting = gauge("sequences_waiting", "sequences waiting in the engine")
        self.held = gauge("sequences_admitted", "sequences of admitted requests")
        self.generated = gauge("engine_generated_tokens", "the engine's own counter")
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
        self.held.set(held)
        self.trace_dropped.set(traces.dropped)
        return generate_latest(self.registry) + generate_latest(REGISTRY)
