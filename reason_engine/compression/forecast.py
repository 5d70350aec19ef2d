"""`reason plan prune`: the P2 law on one's own runs, how far to trust it, and the tokens that a target loss needs.

Its error is measured twice, on points the fit has not seen: the last fifth of each run's checkpoints after a fit to the
first four fifths (as the paper validates), and each whole run after a fit to all others. Beside it, from the same
points: a constant and a power law in D (both for all runs together) and, for checkpoints, the last value seen of the
same run and a power law of that run alone. For a run seen in part the law is also led through what is seen of
it: times the mean factor (in log) by which its last seen points lie off the law. Forecasts for runs of the file are led
so; a model that is not in it has no such points. An error is |predicted − seen| / seen of L − L0; the interval is a
bootstrap over runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from reason_engine.compression.law import Law, Point, check, fit, runs_of
from reason_engine.errors import SetupError

SEEN = 0.8
"""Share of a run's checkpoints that is fitted to where the rest is predicted."""
BOOTSTRAPS = 2000
LAST = 0.25
"""Share of a run's seen points that the law is led through."""

Predictor = Callable[[Point], float]
"""Of L − L0 at a point."""
Split = tuple[list[Point], list[Point]]
"""Points that are fitted to, points that are predicted."""


@dataclass(frozen=True, slots=True)
class HeldOutError:
    """Mean relative error of L − L0 on unseen points with its 95 % interval; `rivals`: the same of plainer models."""

    points: int
    error: float
    interval: tuple[float, float]
    worst: float
    rivals: dict[str, float]


@dataclass(frozen=True, slots=True)
class Goal:
    """A model and what is asked of its recovery: a loss, what a number of tokens comes to, or (neither) its limit."""

    run: str
    N0: float
    rho: float
    L0: float
    target_loss: float | None = None
    tokens: float | None = None
    level: float = 1.0
    """The factor by which the run lies off the law."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Loss after `tokens`. `refused`: why no number of tokens is enough, else None. `wish` is the goal, by the name it
    has in the JSON output."""

    wish: Goal
    tokens: float | None
    loss: float | None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class PruningForecast:
    """`dropped`: points at or below the loss before pruning."""

    by: str
    law: Law
    runs: int
    points: int
    dropped: int
    checkpoints: HeldOutError
    whole_runs: HeldOutError
    forecasts: tuple[Forecast, ...]


def predict(points: Sequence[Point], by: str | None, goals: Sequence[Goal]) -> PruningForecast:
    """Fit, judge and predict. Raises SetupError on too few points, on an unknown `by`, on a target that the only goal
    cannot reach."""
    chosen = of_kind(points, by)
    check(chosen)
    law = fit(chosen)
    used = [point for point in chosen if point.excess > 0]
    levels = {name: level_of(law, run) for name, run in runs_of(used).items() if name in {goal.run for goal in goals}}
    goals = [replace(goal, level=levels.get(goal.run, goal.level)) for goal in goals]
    return PruningForecast(
        chosen[0].by,
        law,
        len(runs_of(chosen)),
        len(chosen),
        len(chosen) - len(used),
        _held_out_error(list(_last_checkpoints(used)), _run_baselines),
        _held_out_error(list(_whole_runs(used)), None),
        tuple(forecast(law, goal, only=len(goals) == 1) for goal in goals),
    )


def of_kind(points: Sequence[Point], by: str | None) -> list[Point]:
    """Points of one kind of pruning, since each kind has constants of its own. Raises SetupError."""
    kinds = sorted({point.by for point in points})
    if by is None and len(kinds) > 1:
        raise SetupError(f"--by: the points are of several kinds, each with a law of its own: {', '.join(kinds)}")
    if by is not None and by not in kinds:
        raise SetupError(f"--by: no points of {by!r}; there are: {', '.join(kinds)}")
    return [point for point in points if by is None or point.by == by]


def forecast(law: Law, goal: Goal, only: bool) -> Forecast:
    """The tokens for a target loss, or the loss after tokens."""
    if goal.tokens is not None:
        excess = goal.level * law.excess(goal.N0, goal.rho, goal.tokens)
        return Forecast(goal, goal.tokens, goal.L0 + excess)
    if goal.target_loss is None:
        return Forecast(goal, None, goal.L0 + goal.level * law.floor(goal.N0, goal.rho))
    try:
        needed = law.tokens(goal.N0, goal.rho, (goal.target_loss - goal.L0) / goal.level)
    except SetupError as error:
        if only:
            raise
        return Forecast(goal, None, None, str(error).removeprefix("--target-loss: "))
    return Forecast(goal, needed, goal.target_loss)


def level_of(law: Law, run: Sequence[Point]) -> float:
    """The factor by which a run's last points lie off the law."""
    last = run[-max(1, round(LAST * len(run))) :]
    return math.exp(_mean([math.log(p.excess / law.excess(p.N0, p.rho, p.D)) for p in last]))


def _last_checkpoints(points: Sequence[Point]) -> Iterator[Split]:
    """One fit; the unseen points of each run in turn."""
    runs = runs_of(points).values()
    seen = [point for run in runs for point in run[: _seen_count(run)]]
    for run in runs:
        yield seen, run[_seen_count(run) :]


def _whole_runs(points: Sequence[Point]) -> Iterator[Split]:
    runs = runs_of(points)
    for name, run in runs.items():
        yield [point for point in points if point.run != name], run


def _seen_count(run: Sequence[Point]) -> int:
    return math.ceil(SEEN * len(run))


def _held_out_error(
    splits: Sequence[Split], baselines: Callable[[Split, Law], dict[str, Predictor]] | None
) -> HeldOutError:
    errors: list[list[float]] = []
    rivals: dict[str, list[float]] = {}
    last: tuple[list[Point], Law] | None = None
    for seen, unseen in splits:
        try:
            law = last[1] if last is not None and last[0] is seen else fit(seen)
        except SetupError:
            continue  # without this run there are too few sizes or rates to fit
        last = (seen, law)
        errors.append([_relative(law.excess(point.N0, point.rho, point.D), point) for point in unseen])
        others = _shared_baselines(seen) | (baselines((seen, unseen), law) if baselines else {})
        for name, predicted in others.items():
            rivals.setdefault(name, []).extend(_relative(predicted(point), point) for point in unseen)
    if not errors:
        return HeldOutError(0, math.nan, (math.nan, math.nan), math.nan, {})
    everything = [error for run in errors for error in run]
    means = {name: _mean(values) for name, values in rivals.items()}
    return HeldOutError(len(everything), _mean(everything), _interval(errors), max(everything), means)


def _relative(predicted: float, point: Point) -> float:
    return abs(predicted - point.excess) / point.excess


def _shared_baselines(seen: Sequence[Point]) -> dict[str, Predictor]:
    middle = math.exp(_mean([math.log(point.excess) for point in seen]))
    return {"constant": lambda _: middle, "power law in D": _power_law(seen)}


def _run_baselines(split: Split, law: Law) -> dict[str, Predictor]:
    seen, unseen = split
    own = sorted((point for point in seen if point.run == unseen[0].run), key=lambda point: point.D)
    level = level_of(law, own)
    return {
        "P2 law led through the run": lambda point: level * law.excess(point.N0, point.rho, point.D),
        "last value of the run": lambda _: own[-1].excess,
        "power law of the run": _power_law(own),
    }


def _power_law(seen: Sequence[Point]) -> Predictor:
    """By least squares of log (L − L0) = a − b log D."""
    import numpy as np

    slope, level = np.polyfit(np.log([p.D for p in seen]), np.log([p.excess for p in seen]), 1)
    return lambda point: math.exp(level + slope * math.log(point.D))


def _interval(errors: Sequence[Sequence[float]]) -> tuple[float, float]:
    import numpy as np

    random = np.random.default_rng(0)
    sums, counts = [sum(run) for run in errors], [len(run) for run in errors]
    drawn = random.integers(0, len(errors), (BOOTSTRAPS, len(errors)))
    means = np.array(sums)[drawn].sum(1) / np.array(counts)[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
