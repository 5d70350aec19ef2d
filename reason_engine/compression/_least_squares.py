"""Least squares of a few parameters: Levenberg-Marquardt (Marquardt 1963), damped by the diagonal of JᵀJ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

STEPS = 200
CLOSE = 1e-9


def minimise(
    residuals: Callable[[Any], tuple[Any, Any]], start: Any, steps: int = STEPS
) -> tuple[Any, float]:
    """(parameters, half the sum of squares). `residuals` gives values [P] and their slopes [P, parameters]."""
    import numpy as np

    theta, damping = np.asarray(start, float), 1e-2
    values, slopes = residuals(theta)
    cost = 0.5 * float(values @ values)
    for _ in range(steps):
        normal, gradient = slopes.T @ slopes, slopes.T @ values
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), -gradient)
        with np.errstate(over="ignore", invalid="ignore"):
            tried, turned = residuals(theta + step)
            new = 0.5 * float(tried @ tried)
        if np.isfinite(new) and np.isfinite(turned).all() and new < cost:
            gained, theta, values, slopes, cost = cost - new, theta + step, tried, turned, new
            damping = max(damping / 5, 1e-12)
            if gained < CLOSE * (1 + cost):
                break
        elif damping > 1e12:
            break
        else:
            damping *= 4
    return theta, cost
