"""The formulas behind a report.

Wilson's interval of a proportion (Wilson 1927), with p = k / n and z = 1.96:
    (p + z^2/2n  +-  z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
McNemar's exact test of a paired difference (McNemar 1947): b problems only the first got right, c only the second;
under no difference b is binomial(b + c, 1/2). Two-sided: p = min(1, 2 P(X <= min(b, c))).
The difference (b - c) / n with the adjusted interval of Bonett and Price 2012, with p = (b + 1) / (n + 2) and
q = (c + 1) / (n + 2): p - q +- z sqrt((p + q - (p - q)^2) / (n + 2)).
pass@k, unbiased (Chen et al. 2021, arXiv:2107.03374, section 2.1): of n answers to a problem c are right; the chance
that at least one of k of them, drawn without replacement, is right: 1 - C(n - c, k) / C(n, k).
Macro-F1: the plain mean over classes of 2 TP / (2 TP + FP + FN), so that a rare class counts as much as a common one.
Bootstrap interval (Efron 1979): the middle 95 % of a figure over samples of the problems, drawn with replacement.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")

Z = 1.959963984540054


def wilson(right: float, count: int) -> tuple[float, float]:
    """95 % interval of right / count; (0, 1) without problems."""
    if count == 0:
        return 0.0, 1.0
    p, z2 = right / count, Z * Z
    middle = p + z2 / (2 * count)
    half = Z * math.sqrt(p * (1 - p) / count + z2 / (4 * count * count))
    low, high = (middle - half) / (1 + z2 / count), (middle + half) / (1 + z2 / count)
    return max(0.0, low) if right else 0.0, min(1.0, high) if right < count else 1.0


def mcnemar(first_only: int, second_only: int) -> float:
    """Two-sided p-value of no difference between paired outcomes."""
    discordant, fewer = first_only + second_only, min(first_only, second_only)
    extreme, binomial = 0, 1  # whole numbers: exact for any count
    for k in range(fewer + 1):
        extreme += binomial
        binomial = binomial * (discordant - k) // (k + 1)
    return min(1.0, 2 * (extreme / 2**discordant))


def paired_difference(first_only: int, second_only: int, count: int) -> tuple[float, float, float]:
    """(difference, low, high) of first minus second, as proportions; (0, -1, 1) without problems."""
    if count == 0:
        return 0.0, -1.0, 1.0
    p, q = (first_only + 1) / (count + 2), (second_only + 1) / (count + 2)
    half = Z * math.sqrt((p + q - (p - q) ** 2) / (count + 2))
    return (first_only - second_only) / count, max(-1.0, p - q - half), min(1.0, p - q + half)


class PairedTest(NamedTuple):
    """Outcomes of two sides on the same problems; `difference` is first minus second, with its interval."""

    problems: int
    first_only: int
    second_only: int
    difference: float
    low: float
    high: float
    p: float


def paired_test(pairs: Sequence[tuple[bool, bool]]) -> PairedTest:
    """Of (first right, second right) on each problem."""
    first_only, second_only = pairs.count((True, False)), pairs.count((False, True))
    difference = paired_difference(first_only, second_only, len(pairs))
    return PairedTest(len(pairs), first_only, second_only, *difference, mcnemar(first_only, second_only))


def pass_at(k: int, right: int, count: int) -> float:
    """Of one problem with so many right answers among `count`, at least k."""
    return 1 - math.comb(count - right, k) / math.comb(count, k)


def macro_f1(pairs: Sequence[tuple[str, str]]) -> float:
    """Of (true, predicted) classes, over the classes that are true of something; 0 without any."""
    right = Counter(true for true, predicted in pairs if true == predicted)
    true, predicted = Counter(true for true, _ in pairs), Counter(predicted for _, predicted in pairs)
    return sum(2 * right[name] / (true[name] + predicted[name]) for name in true) / max(1, len(true))


def bootstrap(items: Sequence[T], figure: Callable[[Sequence[T]], float], rounds: int = 1000) -> tuple[float, float]:
    """95 % interval of a figure of these items; the same each time."""
    rng = random.Random(0)
    drawn = sorted(figure(rng.choices(items, k=len(items))) for _ in range(rounds))
    return drawn[int(0.025 * rounds)], drawn[int(0.975 * rounds) - 1]
