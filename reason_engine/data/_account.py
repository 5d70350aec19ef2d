"""The account of a run that makes rows: what was attempted, what came of it, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from reason_engine.data._outputs import Outputs


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an attempt is dropped."""

    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Account:
    """attempts = kept + dropped. `not_attempted`: what the budget left undone; the run goes on with a larger one."""

    run: str
    rows: int
    bad_rows: int
    attempts: int
    kept: int
    dropped: int
    not_attempted: int
    by_reason: Mapping[str, int]
    tokens: int
    statement: str
    model: str
    config: Mapping[str, Any]
    problems: Mapping[str, int] = field(default_factory=dict[str, int])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def describe(self) -> str:
        """The account as text."""
        lines = [
            f"  {self.statement}",
            f"rows {self.rows}, bad {self.bad_rows}",
            *(f"  problems {name:<18} {count}" for name, count in self.problems.items()),
            f"attempts {self.attempts} = kept {self.kept} + dropped {self.dropped}; {self.tokens} tokens",
            *(f"  dropped  {reason:<18} {count}" for reason, count in sorted(self.by_reason.items())),
        ]
        if self.not_attempted:
            lines.append(
                f"not attempted, since the budget is spent: {self.not_attempted}; run again with more"
            )
        return "\n".join(lines)


class Tally:
    """Counts while the outputs are written."""

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self.kept = self.not_attempted = 0
        self.reasons: Counter[str] = Counter()

    def keep(self, row: Mapping[str, Any]) -> None:
        self.kept += 1
        self._outputs.keep(row)

    def drop(self, refusal: Refusal, place: Mapping[str, Any], what: Mapping[str, Any]) -> None:
        """A dropped attempt with its place, reason, evidence and whatever else tells of it."""
        self.reasons[refusal.reason] += 1
        self.note(refusal, place, what)

    def note(self, refusal: Refusal, place: Mapping[str, Any], what: Mapping[str, Any]) -> None:
        """A row that was no attempt, such as one that cannot be read."""
        said = {"reason": refusal.reason, "evidence": dict(refusal.evidence)}
        self._outputs.put("dropped", {**place, **said, **what})
