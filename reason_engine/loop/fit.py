"""The strategies that `reason calibrate` measures, and the plans that it fits to what they did: pure arithmetic.

The grid is small and declared. Every registered strategy is in it, one that is not named here with its usual settings;
`auto` is not, since it is made of the others. Where the questions are of a task with a checker, best-of-n asks it.

A plan is a chain of arms with thresholds. On problem i it goes on to the next arm while the certainty c of the present
one is below its threshold a, and is right where the arm that it ends with is right:

    s(i) = the first j with c_j(i) >= a_j, else the last;   success = mean right_s(i)(i)
    tokens = mean over i of the sum over kinds of paths of max_{j <= s(i)} spent_j(i, kind)

since a later vote takes what an earlier one drew. Of all plans those stay that nothing cheaper reaches; the last of
them is the cheapest one within `within` of the best. Ties go to the cheaper plan, then to the shorter one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from reason_engine.policy import Case, Curve, Plan, Stage
from reason_engine.strategies import strategies

CUTS = (8, 16, 32, 64, 128)
"""Where questions may be told apart by their length in words."""
SMALLEST = 12
"""Problems that a case of its own needs."""
QUANTILES = (0.02, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85)
DEAREST_PROBE = 0.6
"""A stage is worth trying first only if it takes no more of the next one's tokens than this."""

STEP = 0.75
"""A plan is kept beside the next better one if it takes no more of its tokens than this."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What an arm did on a problem. `spent`: tokens by kind of path."""

    right: bool
    certainty: float
    spent: Mapping[str, int]

    @property
    def tokens(self) -> int:
        return sum(self.spent.values())


@dataclass(frozen=True)
class Measured:
    """An arm with its sample on each problem, in the problems' order."""

    stage: Stage
    samples: tuple[Sample, ...]

    @property
    def tokens(self) -> float:
        return sum(sample.tokens for sample in self.samples) / len(self.samples)

    @property
    def success(self) -> float:
        return sum(sample.right for sample in self.samples) / len(self.samples)


def buckets(words: Sequence[int]) -> list[tuple[int | None, list[int]]]:
    """(most words, indices of the questions) of each case by length; the last one is open. Small ones are joined with
    the next longer, the last one with the one before."""
    found: list[tuple[int | None, list[int]]] = []
    waiting = list(range(len(words)))
    for cut in CUTS:
        short = [i for i in waiting if words[i] <= cut]
        if len(short) >= SMALLEST and len(waiting) - len(short) >= SMALLEST:
            found.append((cut, short))
            waiting = [i for i in waiting if words[i] > cut]
    return [*found, (None, waiting)]


def fit(
    task: str | None, words: int | None, measured: Sequence[Measured], within: float = 0.01
) -> tuple[Case, list[Curve]]:
    """The case with its plans, and the curves that they come from."""
    plans = frontier(candidates(measured), within)
    direct = next((arm for arm in measured if arm.stage.strategy == "direct"), None)
    length = (direct or min(measured, key=lambda arm: arm.tokens)).tokens
    case = Case(task=task, words=words, direct_tokens=max(1.0, round(length, 2)), plans=tuple(plans))
    curves = [
        Curve(
            case=case.label, strategy=Arm(arm.stage).label, problems=len(arm.samples), success=round(arm.success, 4),
            tokens=round(arm.tokens, 2),
        )
        for arm in measured
    ]  # fmt: skip
    return case, curves


def frontier(plans: Sequence[Plan], within: float = 0.01) -> list[Plan]:
    """Plans that nothing cheaper reaches, cheapest first, up to the cheapest within `within` of the best."""
    found: list[Plan] = []
    for plan in sorted(plans, key=lambda plan: (plan.tokens, -(plan.success or 0), len(plan.stages))):
        if not found or (plan.success or 0) > (found[-1].success or 0):
            found.append(plan)
    enough = (found[-1].success or 0) - within - 1e-9
    last = next(i for i, plan in enumerate(found) if (plan.success or 0) >= enough)
    return _thinned(found[: last + 1])


def _thinned(plans: Sequence[Plan]) -> list[Plan]:
    """Without those that the next one costs little more than; the cheapest and the best stay."""
    kept = list(plans[-1:])
    for plan in reversed(plans[1:-1]):
        if plan.tokens <= STEP * kept[0].tokens:
            kept.insert(0, plan)
    return [*plans[:1], *kept] if len(plans) > 1 else kept


def candidates(measured: Sequence[Measured]) -> list[Plan]:
    """Every arm by itself, and every chain of two or three with every choice of thresholds."""
    plans: list[Plan] = []
    for chain in _chains(measured):
        costs = _costs(chain)
        thresholds = [{_threshold(arm, q) for q in QUANTILES} for arm in chain[:-1]]
        choices = product(*(sorted(value for value in found if value > 0) for found in thresholds))
        plans += [_plan(chain, costs, accept) for accept in choices]
    return plans


def _chains(measured: Sequence[Measured]) -> Iterator[tuple[Measured, ...]]:
    yield from ((arm,) for arm in measured)
    pairs = [(a, b) for a in measured for b in measured if a.tokens <= DEAREST_PROBE * b.tokens]
    yield from pairs
    yield from ((a, b, c) for a, b in pairs for x, c in pairs if x is b)


def _costs(chain: Sequence[Measured]) -> list[list[int]]:
    """Tokens of problem i if the chain ends with its arm j: costs[j][i]."""
    costs: list[list[int]] = [[] for _ in chain]
    for samples in zip(*(arm.samples for arm in chain), strict=True):
        most: dict[str, int] = {}
        for place, sample in enumerate(samples):
            most |= {kind: max(most.get(kind, 0), tokens) for kind, tokens in sample.spent.items()}
            costs[place].append(sum(most.values()))
    return costs


def _plan(chain: Sequence[Measured], costs: Sequence[Sequence[int]], accept: Sequence[float]) -> Plan:
    right = tokens = 0
    last, count = len(chain) - 1, len(chain[0].samples)
    for i in range(count):
        place = 0
        while place < last and chain[place].samples[i].certainty < accept[place]:
            place += 1
        right += chain[place].samples[i].right
        tokens += costs[place][i]
    stages = [arm.stage.model_copy(update={"accept": accept[j] if j < last else None}) for j, arm in enumerate(chain)]
    return Plan(stages=tuple(stages), tokens=max(0.5, round(tokens / count, 2)), success=right / count)


def _threshold(arm: Measured, quantile: float) -> float:
    """A certainty that this share of the problems stays below. Rounded down, so that what is equal is accepted."""
    values = sorted(sample.certainty for sample in arm.samples)
    value = values[min(len(values) - 1, int(quantile * len(values)))]
    return float(f"{value * (1 - 1e-6):.6g}")


# The largest votes first: they draw the paths that the smaller ones are made of.
GRID: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "self-consistency": (
        {"n": 16},
        {"n": 8},
        {"n": 3},
        *({"n": 16, "adaptive": True, "confidence": sure} for sure in (0.7, 0.8, 0.9, 0.95)),
    ),
    "best-of-n": ({"n": 16}, {"n": 8}, {"n": 4}),
    "direct": ({"temperature": 0},),
    "chain-of-thought": ({"temperature": 0},),
    "tree-of-thoughts": ({}, {"visits": 8}),
}
POOLED = frozenset({"self-consistency", "best-of-n", "direct", "chain-of-thought"})
"""They draw whole paths and stop none of them half-way: what one drew the next one may take."""


@dataclass(frozen=True)
class Arm:
    """One strategy with its settings."""

    stage: Stage

    @property
    def label(self) -> str:
        """As `reason eval` writes it."""
        fields = ",".join(f"{key}={value}" for key, value in self.stage.fields.items())
        return f"{self.stage.strategy}:{fields}" if fields else self.stage.strategy

    @property
    def pooled(self) -> bool:
        return self.stage.strategy in POOLED


def arms(checker: str | None, only: Iterable[str] = (), judges: Sequence[str] = ()) -> list[Arm]:
    """The grid for questions with or without a checker. `only`: of these strategies. `judges`: the profile's verifiers,
    which best-of-n asks where there is no checker. Raises UnknownName."""
    wanted = [name for name in only if strategies.get(name)] or list(strategies)
    names = [name for name in (*GRID, *(name for name in strategies if name not in GRID)) if name in wanted]
    found: list[Arm] = []
    for name in names:
        for fields in GRID.get(name, ({},)) if name != "auto" else ():
            extra = {"verifier": checker} if checker and name == "best-of-n" else {}
            found.append(Arm(Stage(strategy=name, fields={**fields, **extra})))
        if name == "best-of-n":
            asked = [{"n": n, "verifier": judge} for judge in judges for n in (16, 8, 4)]
            asked += [{"n": 1, "temperature": 0, "verifier": judge} for judge in judges]
            adaptive = {"n": 16, "adaptive": True, "verifier": checker}
            found += [Arm(Stage(strategy=name, fields=fields)) for fields in ([adaptive] if checker else asked)]
    return found
