"""Who votes, for which answer, and what a vote weighs.

A path votes if it ended with an answer or had given a whole one before a limit ended it, or if one was forced out of
it; a forced answer weighs its probability. A weak reading (the end of a text, where no mark says that it is the answer)
abstains while at least half of the paths have a strong one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from reason_engine.answers import closed
from reason_engine.runtime.context import Context
from reason_engine.strategies.voting.equal import SameAnswers
from reason_engine.types import Path, Vote

Weigh = Callable[[Path], float]


def evenly(path: Path) -> float:
    """Every path weighs the same."""
    return 1.0


def voters(ctx: Context, paths: Sequence[Path], weigh: Weigh = evenly) -> list[tuple[Path, float]]:
    """Those of these paths that vote, and what each weighs."""
    strong = 2 * sum(path.strength == "strong" for path in paths) >= len(paths)
    return [
        (path, weight)
        for path in paths
        if _answers(ctx, path)
        and not (strong and path.strength == "weak")
        and (weight := weigh(path) * path.weight) > 0
    ]


def _answers(ctx: Context, path: Path) -> bool:
    """Whether its answer is one: it ended with it, or had given it whole before it was ended."""
    if path.answer is None or path.finished:
        return path.answer is not None
    return path.strength == "strong" and closed(ctx.parse(path).content, ctx.spec, marker=ctx.profile.answer_marker)


@dataclass(frozen=True, slots=True)
class Cast:
    """A vote: whose, for which answer, of what weight."""

    path: Path
    answer: str
    weight: float


def tallied(cast: Sequence[Cast]) -> tuple[Vote, ...]:
    """The votes by answer, heaviest first; of equal ones that of the most certain path, then the one given first."""
    counted: dict[str, Vote] = {}
    certain: dict[str, float] = {}
    for one in cast:
        vote = counted.get(one.answer, Vote(one.answer, 0))
        counted[one.answer] = Vote(one.answer, vote.count + 1, vote.weight + one.weight)
        certain[one.answer] = max(certain.get(one.answer, -inf), one.path.mean_logprob)
    return tuple(sorted(counted.values(), key=lambda vote: (-vote.weight, -certain[vote.answer])))


async def count_votes(ctx: Context, paths: Sequence[Path], weights: Sequence[float] | None = None) -> tuple[Vote, ...]:
    """Equal answers of these paths counted together, heaviest first. A weight is 1 unless given; a path without an
    answer has no vote."""
    given = weights or [1.0] * len(paths)
    found = [(path, weight) for path, weight in zip(paths, given, strict=True) if path.answer is not None]
    names = await SameAnswers().names(ctx, [path.answer or "" for path, _ in found])
    return tallied([Cast(path, name, weight) for (path, weight), name in zip(found, names, strict=True) if name])


async def best_voter(ctx: Context, paths: Sequence[Path], answer: str) -> Path:
    """The most certain path, then the first, that gave this answer."""
    named = [path for path in paths if path.answer is not None]
    names = await SameAnswers().names(ctx, [path.answer or "" for path in named])
    same = [path for path, name in zip(named, names, strict=True) if answer in (name, path.answer)]
    return max(same, key=lambda path: path.mean_logprob)
