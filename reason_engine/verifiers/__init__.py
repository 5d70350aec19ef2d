"""Verifiers: judges of finished paths. Each is a frozen pydantic model whose fields are the `params` of a request."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from reason_engine.contracts import Verifier
from reason_engine.registry import Registry

Aggregate = Literal["last", "min", "product", "mean"]
_AGGREGATES: Mapping[Aggregate, Callable[[Sequence[float]], float]] = {
    "last": lambda values: values[-1],
    "min": min,
    "product": math.prod,
    "mean": lambda values: sum(values) / len(values),
}

verifiers: Registry[Verifier] = Registry("verifier", "reason_engine.verifiers")


def aggregated(scores: Sequence[float], how: Aggregate) -> float:
    """The score of a path by the scores of its steps; 0 for none."""
    return _AGGREGATES[how](scores) if scores else 0.0
