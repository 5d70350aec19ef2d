"""Verifiers: judges of finished paths. Each is a frozen pydantic model whose fields are the `params` of a request."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from reason_engine.contracts import Verifier
from reason_engine.registry import Registry

verifiers: Registry[Verifier] = Registry("verifier", "reason_engine.verifiers")

aggregates: Mapping[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "product": math.prod,
    "mean": lambda values: sum(values) / len(values),
    "last": lambda values: values[-1],
}
"""How the scores of a path's steps, at least one, make the score of the path."""

__all__ = ["aggregates", "verifiers"]
