"""Prometheus series of one server, in a registry of its own. No label is made of what a caller can choose freely."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from reason_engine.contracts import Health
from reason_engine.runtime.outcome import Outcome
from reason_engine.runtime.trace import TraceRing
from reason_engine.types import Usage

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
BRANCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counts requests and what they cost. `strategy` labels are names of registered strategies."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter(
            "reason_requests", "requests by outcome", ("strategy", "outcome"), registry=own
        )
        self.seconds = Histogram(
            "reason_request_seconds", "duration of a request", ("strategy",), buckets=SECONDS, registry=own
        )
        self.branches = Histogram(
            "reason_branches",
            "generated sequences of a request",
            ("strategy",),
            buckets=BRANCHES,
            registry=own,
        )
        self.tokens = Counter(
            "reason_engine_tokens",
            "generated tokens: in the answer's content or not",
            ("role",),
            registry=own,
        )
        self.prompt_tokens = Counter(
            "reason_prompt_tokens", "prompt tokens of all internal calls", registry=own
        )
        self.cached_tokens = Counter(
            "reason_cached_tokens", "of these, found in the prefix cache", registry=own
        )
        self.drafted = Counter(
            "reason_draft_tokens", "drafted tokens that were right or wrong", ("outcome",), registry=own
        )
        self.draft_failures = Gauge(
            "reason_draft_failures", "requests whose drafter failed; they went on without", registry=own
        )
        self.exhausted = Counter(
            "reason_budget_exhausted", "runs cut by their budget", ("limit",), registry=own
        )
        self.rejections = Counter(
            "reason_rejections", "requests refused before any work", ("reason",), registry=own
        )
        self.stops = Counter(
            "reason_guard_stops",
            "requests and answers that a rule of the operator's stopped",
            ("rule", "where"),
            registry=own,
        )
        self.trace_dropped = Gauge("reason_trace_dropped", "traces that left the ring", registry=own)
        self.running = Gauge("reason_sequences_running", "sequences running in the engine", registry=own)
        self.waiting = Gauge("reason_sequences_waiting", "sequences waiting in the engine", registry=own)
        self.held = Gauge("reason_sequences_admitted", "sequences of admitted requests", registry=own)
        self.generated = Gauge("reason_engine_generated_tokens", "the engine's own counter", registry=own)
        self.lag = Gauge("reason_event_loop_lag_seconds", "how late the event loop wakes", registry=own)

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
