"""What comparisons of pairs come to: who meets whom, and how strong each is.

`wins[i, j]` is the share, in [0, 1], that i won against j.
"""

from __future__ import annotations

from collections.abc import Mapping

ROUNDS = 200
PRIOR = 0.1
"""Of a win and a loss against an average opponent for each, so that strengths stay finite."""


def ring(count: int, rivals: int) -> list[tuple[int, int]]:
    """Each meets its next `rivals` in a ring; everybody everybody where they are few. No pair twice."""
    pairs = {
        (min(i, j), max(i, j))
        for i in range(count)
        for j in ((i + k) % count for k in range(1, min(rivals, count - 1) + 1))
    }
    return sorted(pairs)


def win_rate(wins: Mapping[tuple[int, int], float], count: int) -> list[float]:
    """The mean share won; not a number for one who met nobody."""
    shares: list[list[float]] = [[] for _ in range(count)]
    for (i, j), share in wins.items():
        shares[i].append(share)
        shares[j].append(1 - share)
    return [sum(s) / len(s) if s else float("nan") for s in shares]


def bradley_terry(wins: Mapping[tuple[int, int], float], count: int) -> list[float]:
    """The shares t / (t + 1) of the strengths t that make the wins likeliest; not a number for one who met nobody.

    Hunter 2004 (Annals of Statistics 32), equation 3: t_i <- W_i / sum_j n_ij / (t_i + t_j), with a weak prior.
    """
    strengths = [1.0] * count
    met = {i for pair in wins for i in pair}
    won = [PRIOR] * count
    for (i, j), share in wins.items():
        won[i] += share
        won[j] += 1 - share
    for _ in range(ROUNDS):
        weights = [2 * PRIOR / (own + 1) for own in strengths]
        for i, j in wins:
            each = 1 / (strengths[i] + strengths[j])
            weights[i] += each
            weights[j] += each
        new = [w / weight for w, weight in zip(won, weights, strict=True)]
        change = max((abs(a - b) / b for a, b in zip(new, strengths, strict=True)), default=0.0)
        strengths = new
        if change < 1e-9:
            break
    return [t / (t + 1) if i in met else float("nan") for i, t in enumerate(strengths)]
