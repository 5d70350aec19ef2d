"""The calibrated policy of `auto`: which strategies to try on which questions, in what order, and when to be content.

Compute-optimal scaling (Snell et al. 2024, arXiv:2408.03314, section 3): for a question of estimated difficulty and a
budget of N tokens, the strategy that is right most often at that price. A policy is a table of cases, told apart by
what is known before a token is generated; each case holds plans, cheapest first, each better than the one before. A
plan is a list of stages, tried in turn until one is sure enough of its answer. It is valid for the weights that were
measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Form = Literal["text", "tools", "json"]
Measure = Literal["answer", "text"]
"""What the certainty of a single path is measured on: the tokens of its answer, or its whole text."""


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(Frozen):
    """One strategy to try. Its answer stands where its certainty is at least `accept`; None: it stands anyway."""

    strategy: str = Field(min_length=1)
    fields: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    accept: float | None = Field(default=None, ge=0, le=1)


class Plan(Frozen):
    """Stages in order, with the new tokens that they are expected to take and the share of right answers."""

    stages: tuple[Stage, ...] = Field(min_length=1)
    tokens: float = Field(gt=0)
    success: float | None = Field(default=None, ge=0, le=1)


class Case(Frozen):
    """Questions of one kind. `task`: of the profile's task of that name; None: of no task that the profile knows.
    `words`: of up to so many words; None: of any length. `direct_tokens`: expected length of a direct answer."""

    task: str | None = None
    words: int | None = Field(default=None, ge=1)
    direct_tokens: float = Field(gt=0)
    plans: tuple[Plan, ...] = Field(min_length=1)

    @property
    def label(self) -> str:
        """The case in a few words."""
        return (self.task or "any") + (f", up to {self.words} words" if self.words else "")


class Curve(Frozen):
    """A point of the measured cost-accuracy curve of one strategy in one case."""

    case: str
    strategy: str
    problems: int = Field(ge=1)
    success: float = Field(ge=0, le=1)
    tokens: float = Field(ge=0)


class Policy(Frozen):
    """`weights`: the hash of the weights that were measured. `certainty`: what the thresholds of single paths were
    fitted to. `made`: by what. Cases are tried in order."""

    weights: str
    certainty: Measure = "text"
    cases: tuple[Case, ...] = Field(min_length=1)
    curves: tuple[Curve, ...] = ()
    made: Mapping[str, Any] = Field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Features:
    """What is known of a question before a token is generated."""

    task: str | None = None
    words: int = 0
    form: Form = "text"


def weights_of(fingerprint: str, adapter: str | None = None) -> str:
    """The hash of the weights in an engine's fingerprint (`embedded-<hash>`, `vllm-0.32.0-<hash>`)."""
    weights = fingerprint.rpartition("-")[2]
    return f"{weights}+{adapter}" if adapter else weights


def case_of(policy: Policy, features: Features) -> Case | None:
    """The first case that the question belongs to. Only plain text was measured."""
    of_task = (case for case in policy.cases if case.task == features.task)
    fitting = (case for case in of_task if features.words <= (case.words or inf))
    return next(fitting, None) if features.form == "text" else None


def pick(plans: Sequence[Plan], tokens: float = inf) -> Plan | None:
    """The last plan, the best, that is expected to take no more than `tokens`."""
    return next((plan for plan in reversed(plans) if plan.tokens <= tokens), None)
