"""`certainty`: how sure the model was of the tokens it sampled. Needs no second model; blind to confident mistakes.

Over the n generated tokens of a path, with p_i the distribution at place i and k the alternatives recorded there:

    mean-logprob     exp(1/n sum_i log p_i(token_i))           the geometric mean probability
    self-certainty   c / (1 + c),  c = 1/n sum_i (-1/k sum_j log p_i(j))
    entropy          exp(-1/n sum_i H(p_i))

Self-certainty: Kang, Zhao and Song 2025 (arXiv 2502.18581, section 3), the divergence of the uniform distribution from
p_i. Departures: the sum runs over the k recorded alternatives instead of the vocabulary and drops the constant log k,
which leaves the order of paths as it is while k is one number. Entropy counts the unrecorded mass as one more
outcome. Each measure lies in [0, 1] and grows with certainty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, Field

from reason_engine.contracts import Call, Site
from reason_engine.errors import CapabilityMissing
from reason_engine.types import Path, Problem, Score, TokenLogprob
from reason_engine.verifiers import verifiers

Measure = Literal["mean-logprob", "self-certainty", "entropy"]
MOST = 20
"""Alternatives that are read; engines that report fewer give as many as they have."""


@verifiers.register("certainty")
class Certainty(BaseModel, extra="forbid", frozen=True):
    """The model's own certainty as a score."""

    measure: Measure = Field("mean-logprob", description="what is averaged over the tokens of a path")

    @property
    def alternatives(self) -> int:
        """What the measure reads beside the sampled token."""
        return 0 if self.measure == "mean-logprob" else MOST

    def bind(self, site: Site) -> Certainty:
        """Raises CapabilityMissing for an engine that reports too little."""
        if site.caps.logprobs < (0 if self.measure == "mean-logprob" else 1):
            raise _missing(self.measure, f"{site.field}.params.measure")
        return self

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """One score a path; 0 where a path has no tokens. Raises CapabilityMissing where nothing was recorded."""
        values = [_MEASURES[self.measure](path.logprobs) for path in paths]
        if values and all(value is None for value in values) and any(path.tokens for path in paths):
            raise _missing(self.measure, "reasoning.verifier.params.measure")
        return [Score(value or 0.0, "certainty", self.measure) for value in values]


def _missing(measure: Measure, param: str) -> CapabilityMissing:
    need = "log-probabilities" if measure == "mean-logprob" else "log-probabilities of the alternatives"
    return CapabilityMissing(
        f"certainty by {measure} needs {need}, which this engine does not report; the embedded and the vllm engine do",
        param=param,
        code="capability_missing",
    )


def mean_logprob(tokens: Sequence[TokenLogprob]) -> float | None:
    """The exponential of the mean log-probability of the sampled tokens; None without tokens."""
    return math.exp(min(0.0, sum(t.logprob for t in tokens) / len(tokens))) if tokens else None


def self_certainty(tokens: Sequence[TokenLogprob]) -> float | None:
    """Mean negative log-probability of the alternatives, mapped to [0, 1); None without alternatives."""
    known = [t for t in tokens if t.top]
    if not known:
        return None
    mean = max(0.0, sum(-sum(max(lp, _FLOOR) for _, _, lp in t.top) / len(t.top) for t in known) / len(known))
    return mean / (1 + mean)


def entropy(tokens: Sequence[TokenLogprob]) -> float | None:
    """The exponential of the negative mean entropy; None without alternatives."""
    known = [[math.exp(lp) for _, _, lp in t.top] for t in tokens if t.top]
    if not known:
        return None
    outcomes = [(*probabilities, max(0.0, 1 - sum(probabilities))) for probabilities in known]
    return math.exp(sum(sum(p * math.log(p) for p in each if 0 < p < 1) for each in outcomes) / len(known))


_FLOOR = -100.0  # an engine may report minus infinity for a masked token
_MEASURES: Mapping[Measure, Callable[[Sequence[TokenLogprob]], float | None]] = {
    "mean-logprob": mean_logprob,
    "self-certainty": self_certainty,
    "entropy": entropy,
}
