"""What one step computes: its equations, and how they stand in the ledger. A step may have several lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reason_engine.types import Passage
from reason_engine.verifiers.process_rules.equations import Equation, equations
from reason_engine.verifiers.process_rules.ledger import Ledger
from reason_engine.verifiers.process_rules.numbers import numbers
from reason_engine.verifiers.process_rules.support import support


@dataclass(frozen=True, slots=True)
class Account:
    """`grounded`: how well the numbers are that the step computes with, None where it is not measured. `derived`:
    whether the answer is the last result, None where the step holds no answer or no result is known."""

    found: tuple[Equation, ...]
    grounded: float | None = None
    derived: bool | None = None

    @property
    def refuted(self) -> bool:
        """Whether something in it is wrong."""
        return self.derived is False or any(equation.holds is False for equation in self.found)


def account(ledger: Ledger | None, text: str, marker: str | None) -> Account:
    """The step's account; the ledger knows its results afterwards. Without a ledger nothing is grounded."""
    if ledger is None:
        return Account(tuple(equations(text)))
    lines = text.split("\n")
    ending = next((number for number, line in enumerate(lines) if marker and line.lstrip().startswith(marker)), None)
    worked, answer = lines[:ending], lines[ending:] if ending is not None else []
    found, said = equations("\n".join(worked)), equations("\n".join(answer))
    grounded = _grounded(ledger, found, keep=True)
    values = [said[-1].result] if said else numbers("\n".join(answer))[-1:]
    value = values[0] if values else None
    if ending is None or not ledger.results or value is None:
        return Account((*found, *said), grounded)
    last = _grounded(ledger, said)
    known = [share for share in (grounded, last) if share is not None]
    return Account((*found, *said), ledger.spent() * min(known, default=1.0), ledger.derived(value))


def fact(step: Account, text: str, passages: Sequence[Passage] | None) -> tuple[float | None, str]:
    """(1 right, 0 wrong, between: how far sources support it, None: not known; why it is wrong)."""
    wrong = next((equation for equation in step.found if equation.holds is False), None)
    if wrong:
        return 0.0, f"{wrong.left} is not {wrong.right}"
    if step.derived is False:
        return 0.0, "not what the steps come to"
    if any(equation.holds for equation in step.found) or step.derived:
        return 1.0, ""
    if passages:
        share = support(text, passages)
        return share, "" if share >= 0.5 else "no source says it"
    return None, ""


def _grounded(ledger: Ledger, found: Sequence[Equation], *, keep: bool = False) -> float | None:
    """How well the worst number is that these compute with. `keep`: each result is known from then on."""
    worst: float | None = None
    for equation in found:
        if equation.operands:
            taken = ledger.take(equation.operands)
            worst = taken if worst is None else min(worst, taken)
            if keep and equation.result is not None:
                ledger.put(equation.result)
    return worst
