"""What `reason calibrate` measures: a small declared grid of strategies and sizes.

Every registered strategy is in it, one that is not named here with its usual settings; `auto` is not, since it is made
of the others. Where the questions are of a task with a checker, best-of-n asks the checker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reason_engine.policy import Stage
from reason_engine.strategies import strategies

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
        if not checker and name == "best-of-n":
            asked = [{"n": n, "verifier": judge} for judge in judges for n in (16, 8, 4)]
            asked += [{"n": 1, "temperature": 0, "verifier": judge} for judge in judges]
            found += [Arm(Stage(strategy=name, fields=fields)) for fields in asked]
        if checker and name == "best-of-n":
            found.append(Arm(Stage(strategy=name, fields={"n": 16, "adaptive": True, "verifier": checker})))
    return found
