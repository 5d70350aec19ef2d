"""The P2 law of post-training after pruning (arXiv 2411.10272v3): the loss that a pruned model reaches after D tokens.

    L = L0 + (1/ρ)^γ (1/N0)^δ (NC / N0^α + DC / D^β + E)

N0: parameters before pruning, ρ: pruned share of them, L0: loss before pruning, D: tokens of recovery. A loss that
rises with ρ has γ < 0. The seven constants are fitted to one's own runs, since none are published for other data.

Departures: fitted in log space to L − L0, with weak priors (a residual counts as 0.1, see PRIOR): α and δ, like NC and
E, can hardly be told apart from a few sizes, and only their product matters for a prediction. Points at L ≤ L0 have no
logarithm and are left out; they are counted.

The points stand in `points.jsonl`, one checkpoint of a user's pruning and recovery run a line, appended by every run:

    {"run": "base-b width 0.3 1a2b3c", "by": "width", "N0": 229952, "rho": 0.301, "L0": 1.104, "D": 20480, "L": 1.731}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reason_engine.errors import SetupError
from reason_engine.jsonl import JsonLines, Line

WORDS, NUMBERS = ("run", "by"), ("N0", "rho", "L0", "D", "L")
SIZES, RATES, CHECKPOINTS = 3, 2, 5
"""Fewest for a fit: sizes, rates, checkpoints of a run."""
SIGMA = 0.1
STARTS, SHORT, BEST, LONG = 24, 10, 3, 200
"""All begin, with so many evaluations each; the best go on to the end."""
PRIOR = ((0.0, 3.0), (0.0, 3.0), (-2.0, 3.0), (-0.7, 1.0), (-0.7, 1.0), (-1.0, 2.0), (0.0, 1.0))
"""Mean and width for log NC, log DC, log E, log α, log β, γ, δ, with N0 and D in units of their geometric means and NC,
DC, E beside the mean of log (L − L0)."""


@dataclass(frozen=True, slots=True)
class Point:
    """`by`: kind of pruning; N0: parameters before it; rho: pruned share; L0: loss before it; D: tokens of recovery;
    L: loss after them."""

    run: str
    by: str
    N0: float
    rho: float
    L0: float
    D: float
    L: float

    @property
    def excess(self) -> float:
        """L − L0."""
        return self.L - self.L0


@dataclass(frozen=True, slots=True)
class Law:
    """The fitted constants, in plain units."""

    NC: float
    DC: float
    E: float
    alpha: float
    beta: float
    gamma: float
    delta: float

    def excess(self, N0: float, rho: float, D: float) -> float:
        """L − L0 after D tokens."""
        return self._factor(N0, rho) * (self.NC * N0**-self.alpha + self.DC * D**-self.beta + self.E)

    def floor(self, N0: float, rho: float) -> float:
        """What L − L0 tends to for ever more tokens."""
        return self._factor(N0, rho) * (self.NC * N0**-self.alpha + self.E)

    def tokens(self, N0: float, rho: float, excess: float) -> float:
        """D at which L − L0 is `excess`. Raises SetupError where no number of tokens is enough."""
        left = excess / self._factor(N0, rho) - self.NC * N0**-self.alpha - self.E
        if left <= 0:
            raise SetupError(
                f"--target-loss: out of reach: at a rate of {rho:g} recovery tends to {self.floor(N0, rho):.4f} above "
                f"the loss before pruning, and the target is {excess:.4f} above it"
            )
        try:
            return (self.DC / left) ** (1 / self.beta)
        except OverflowError:
            return math.inf

    def _factor(self, N0: float, rho: float) -> float:
        return (1 / rho) ** self.gamma * (1 / N0) ** self.delta


def fit(points: Sequence[Point]) -> Law:
    """The law with the least squared error of log (L − L0), best of several starts. Raises SetupError on too few."""
    import numpy as np
    from scipy.optimize import least_squares

    check(points)
    used = [point for point in points if point.excess > 0]
    sizes, tokens, p_P, seen = (np.log([getattr(one, name) for one in used]) for name in ("N0", "D", "rho", "excess"))
    middle_N, middle_D, middle = sizes.mean(), tokens.mean(), seen.mean()
    n_P, d_P = sizes - middle_N, tokens - middle_D
    mean, width = np.array(PRIOR).T
    mean = mean + middle * np.array([1, 1, 1, 0, 0, 0, 0])
    weight = 1 / SIGMA

    def terms(theta: Any) -> Any:
        nc, dc, e, a, b, *_ = theta
        return np.stack([nc - np.exp(a) * n_P, dc - np.exp(b) * d_P, np.full_like(n_P, e)])

    def residuals(theta: Any) -> Any:
        predicted_P = np.logaddexp.reduce(terms(theta)) - theta[5] * p_P - theta[6] * n_P
        return np.concatenate([(predicted_P - seen) * weight, (theta - mean) / width])

    def slopes(theta: Any) -> Any:
        logs = terms(theta)
        shares = np.exp(logs - np.logaddexp.reduce(logs))
        alpha, beta = np.exp(theta[3:5])
        columns = [*shares, -shares[0] * alpha * n_P, -shares[1] * beta * d_P, -p_P, -n_P]
        return np.concatenate([np.stack(columns, 1) * weight, np.diag(1 / width)])

    def minimise(start: Any, evaluations: int) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):
            return least_squares(residuals, start, slopes, method="lm", max_nfev=evaluations)  # pyright: ignore

    random = np.random.default_rng(0)
    begun = [minimise(mean + width * random.standard_normal(7), SHORT) for _ in range(STARTS)]
    begun.sort(key=lambda found: found.cost)
    ended = [minimise(found.x, LONG) for found in begun[:BEST]]
    nc, dc, e, a, b, gamma, delta = min(ended, key=lambda found: found.cost).x
    alpha, beta = math.exp(a), math.exp(b)
    scale = delta * middle_N
    NC, DC = math.exp(nc + scale + alpha * middle_N), math.exp(dc + scale + beta * middle_D)
    return Law(NC, DC, math.exp(e + scale), alpha, beta, float(gamma), float(delta))


def check(points: Sequence[Point]) -> None:
    """Raises SetupError where these runs cannot tell the constants apart."""
    sizes, rates = {point.N0 for point in points}, {point.rho for point in points}
    if len(sizes) < SIZES or len(rates) < RATES:
        raise SetupError(
            f"--points: runs of {len(sizes)} sizes and {len(rates)} rates; the law needs at least {SIZES} sizes and "
            f"{RATES} rates: `reason compress prune … --set recover.tokens=…` adds them"
        )
    for name, run in runs_of(points).items():
        if sum(point.excess > 0 for point in run) < CHECKPOINTS:
            raise SetupError(
                f"--points: run {name!r} has {len(run)} checkpoints, {sum(p.excess > 0 for p in run)} of them above "
                f"the loss before pruning; at least {CHECKPOINTS} are needed"
            )


def read_points(path: Path) -> list[Point]:
    """The file's points. Raises SetupError naming the line and the field at fault."""
    try:
        lines = list(JsonLines(path).lines("read"))
    except OSError as error:
        raise SetupError(f"--points: {path}: {error}") from None
    found = [_point(line, path) for line in lines if line.data.strip()]
    if not found:
        raise SetupError(f"--points: {path}: holds no points")
    return found


def append_points(path: Path, points: Sequence[Point]) -> None:
    """Add them at the end in one write, so that runs at the same time do not mix their lines. Raises SetupError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        JsonLines(path, escape=True).append(*map(asdict, points))
    except OSError as error:
        raise SetupError(f"points: {path}: {error}") from None


def runs_of(points: Sequence[Point]) -> dict[str, list[Point]]:
    """By run, each by rising D."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.run, []).append(point)
    return {name: sorted(run, key=lambda point: point.D) for name, run in found.items()}


def _point(line: Line, path: Path) -> Point:
    where = f"--points: {path}:{line.number}"
    try:
        row: Any = line.value()
    except UnicodeDecodeError as error:
        raise SetupError(f"--points: {path}: {error}") from None
    except ValueError:
        raise SetupError(f"{where}: not JSON") from None
    if not isinstance(row, Mapping):
        raise SetupError(f"{where}: must be an object with {', '.join(WORDS + NUMBERS)}")
    values = {name: _number(row, name, where) for name in NUMBERS}
    if name := next((name for name in ("N0", "D") if values[name] < 1), None):
        raise SetupError(f"{where}: {name}: must be at least 1, is {values[name]:g}")
    if not 0 < values["rho"] < 1:
        raise SetupError(f"{where}: rho: must be above 0 and below 1, is {values['rho']:g}")
    words = {name: row.get(name) for name in WORDS}
    if odd := next((name for name, word in words.items() if not isinstance(word, str) or not word), None):
        raise SetupError(f"{where}: {odd}: must be a word" + ("" if odd in row else ", is missing"))
    run, by = map(str, words.values())
    return Point(run, by, **values)


def _number(row: Mapping[str, Any], name: str, where: str) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SetupError(f"{where}: {name}: must be a number" + ("" if name in row else ", is missing"))
    return float(value)
