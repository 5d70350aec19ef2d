"""`reason plan prune`: the P2 law on one's own runs, how far to trust it, and the tokens that a target loss needs.

Trust is measured twice, on points the fit has not seen: the last fifth of each run's checkpoints after a fit to the
first four fifths (as the paper validates), and each whole run after a fit to all others. Beside it, from the same
points: a constant and a power law in D (both for all runs together) and, for checkpoints, the last value seen of the
same run and a power law of that run alone. For a run seen in part the law is also led through what is seen of
it: times the mean factor (in log) by which its last seen points lie off the law. Forecasts for runs of the file are led
so; a model that is not in it has no such points. An error is |said − seen| / seen of L − L0; the interval is a
bootstrap over runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from reason_engine.compression.law.law import Law, check, fit
from reason_engine.compression.law.points import Point, runs_of
from reason_engine.errors import SetupError

SEEN = 0.8
"""Share of a run's checkpoints that is fitted to where the rest is predicted."""
BOOTSTRAPS = 2000

LAST = 0.25
"""Share of a run's seen points that the law is led through."""

LED = "P2 law led through the run"

Says = Callable[[Point], float]


@dataclass(frozen=True, slots=True)
class Trust:
    """Mean relative error of L − L0 on unseen points with its 95 % interval; `rivals`: the same of plainer models."""

    points: int
    error: float
    interval: tuple[float, float]
    worst: float
    rivals: dict[str, float]


@dataclass(frozen=True, slots=True)
class Wish:
    """A model and what is asked of its recovery; one of the two."""

    run: str
    N0: float
    rho: float
    L0: float
    target_loss: float | None = None
    tokens: float | None = None
    level: float = 1.0
    """By which the run lies off the law."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a wish comes to: loss after `tokens`. `reached`: why no number of tokens is enough, else None."""

    wish: Wish
    tokens: float | None
    loss: float | None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """`dropped`: points at or below the loss before pruning."""

    by: str
    law: Law
    runs: int
    points: int
    dropped: int
    checkpoints: Trust
    whole_runs: Trust
    forecasts: tuple[Forecast, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan(points: Sequence[Point], by: str | None, wishes: Sequence[Wish]) -> Plan:
    """Fit, judge and predict. Raises SetupError on too few points, on an unknown `by`, on a target that the only wish
    cannot reach."""
    chosen = of_kind(points, by)
    check(chosen)
    law = fit(chosen)
    used = [point for point in chosen if point.excess > 0]
    return Plan(
        chosen[0].by,
        law,
        len(runs_of(chosen)),
        len(chosen),
        len(chosen) - len(used),
        _judge(list(_checkpoints(used)), _alone),
        _judge(list(_whole(used)), None),
        tuple(forecast(law, _led(law, used, wish), alone=len(wishes) == 1) for wish in wishes),
    )


def of_kind(points: Sequence[Point], by: str | None) -> list[Point]:
    """Points of one kind of pruning, since each kind has constants of its own. Raises SetupError."""
    kinds = sorted({point.by for point in points})
    if by is None and len(kinds) > 1:
        raise SetupError(
            f"--by: the points are of several kinds, each with a law of its own: {', '.join(kinds)}"
        )
    if by is not None and by not in kinds:
        raise SetupError(f"--by: no points of {by!r}; there are: {', '.join(kinds)}")
    return [point for point in points if by is None or point.by == by]


def forecast(law: Law, wish: Wish, alone: bool) -> Forecast:
    """The tokens for a target loss, or the loss after tokens."""
    if wish.tokens is not None:
        excess = wish.level * law.excess(wish.N0, wish.rho, wish.tokens)
        return Forecast(wish, wish.tokens, wish.L0 + excess)
    if wish.target_loss is None:
        return Forecast(wish, None, wish.L0 + wish.level * law.floor(wish.N0, wish.rho))
    try:
        needed = law.tokens(wish.N0, wish.rho, (wish.target_loss - wish.L0) / wish.level)
    except SetupError as error:
        if alone:
            raise
        return Forecast(wish, None, None, str(error).removeprefix("--target-loss: "))
    return Forecast(wish, needed, wish.target_loss)


def level(law: Law, run: Sequence[Point]) -> float:
    """The factor by which a run's last points lie off the law."""
    last = run[-max(1, round(LAST * len(run))) :]
    return math.exp(_mean([math.log(p.excess / law.excess(p.N0, p.rho, p.D)) for p in last]))


def _led(law: Law, points: Sequence[Point], wish: Wish) -> Wish:
    run = runs_of(points).get(wish.run)
    return wish if run is None else replace(wish, level=level(law, run))


Split = tuple[list[Point], list[Point]]
"""Points that are fitted to, points that are predicted."""


def _checkpoints(points: Sequence[Point]) -> Iterator[Split]:
    """One fit; the unseen points of each run in turn."""
    runs = runs_of(points).values()
    seen = [point for run in runs for point in run[: _cut(run)]]
    for run in runs:
        yield seen, run[_cut(run) :]


def _whole(points: Sequence[Point]) -> Iterator[Split]:
    runs = runs_of(points)
    for name, run in runs.items():
        yield [point for point in points if point.run != name], run


def _cut(run: Sequence[Point]) -> int:
    return math.ceil(SEEN * len(run))


def _judge(splits: Sequence[Split], alone: Callable[[Split, Law], dict[str, Says]] | None) -> Trust:
    errors: list[list[float]] = []
    rivals: dict[str, list[float]] = {}
    last: tuple[list[Point], Law] | None = None
    for seen, unseen in splits:
        try:
            law = last[1] if last is not None and last[0] is seen else fit(seen)
        except SetupError:
            continue  # without this run there are too few sizes or rates to fit
        last = (seen, law)
        errors.append([_off(law.excess(point.N0, point.rho, point.D), point) for point in unseen])
        others = _together(seen) | (alone((seen, unseen), law) if alone else {})
        for name, says in others.items():
            rivals.setdefault(name, []).extend(_off(says(point), point) for point in unseen)
    if not errors:
        return Trust(0, math.nan, (math.nan, math.nan), math.nan, {})
    everything = [error for run in errors for error in run]
    return Trust(
        len(everything),
        _mean(everything),
        _interval(errors),
        max(everything),
        {name: _mean(values) for name, values in rivals.items()},
    )


def _off(said: float, point: Point) -> float:
    return abs(said - point.excess) / point.excess


def _together(seen: Sequence[Point]) -> dict[str, Says]:
    middle = math.exp(_mean([math.log(point.excess) for point in seen]))
    return {"constant": lambda _: middle, "power law in D": _power_law(seen)}


def _alone(split: Split, law: Law) -> dict[str, Says]:
    seen, unseen = split
    own = sorted((point for point in seen if point.run == unseen[0].run), key=lambda point: point.D)
    off = level(law, own)
    return {
        LED: lambda point: off * law.excess(point.N0, point.rho, point.D),
        "last value of the run": lambda _: own[-1].excess,
        "power law of the run": _power_law(own),
    }


def _power_law(seen: Sequence[Point]) -> Says:
    """By least squares of log (L − L0) = a − b log D."""
    import numpy as np

    slope, level = np.polyfit(np.log([p.D for p in seen]), np.log([p.excess for p in seen]), 1)
    return lambda point: math.exp(level + slope * math.log(point.D))


def _interval(errors: Sequence[Sequence[float]]) -> tuple[float, float]:
    import numpy as np

    random, sums, counts = (
        np.random.default_rng(0),
        [sum(run) for run in errors],
        [len(run) for run in errors],
    )
    drawn = random.integers(0, len(errors), (BOOTSTRAPS, len(errors)))
    means = np.array(sums)[drawn].sum(1) / np.array(counts)[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
