"""Values of each kind in one spelling. Part of `answers`."""

from __future__ import annotations

from reason_engine.answers.kind import AnswerKind
from reason_engine.answers.values.choices import chosen, verdict
from reason_engine.answers.values.expression import expression
from reason_engine.answers.values.number import quantity, show
from reason_engine.answers.values.plain import strip
from reason_engine.answers.values.programs import canonical_program
from reason_engine.answers.values.structured import canonical_calls, canonical_json
from reason_engine.answers.values.words import words


def normalise(value: str, kind: AnswerKind | None = None) -> str:
    """The value in the one spelling of its kind; of no kind, without what carries no meaning in any. Idempotent.

    A number with a unit is the number. A value that is not of the kind is spelt as one of no kind.
    """
    for _ in range(_PASSES):
        before, value = value, _once(value, kind)
        if value == before:
            break
    return value


def comparable(value: str, kind: AnswerKind | None) -> str:
    """What two values of a kind are compared by before anything else: equal ones are the same."""
    if kind == "code":
        return canonical_program(value)
    if kind == "tool":
        return canonical_calls(value) or normalise(value, kind)
    if kind == "yes-no":
        spelt = normalise(value, kind)
        return {"true": "yes", "false": "no"}.get(spelt, spelt)
    return normalise(value, kind)


def _once(value: str, kind: AnswerKind | None) -> str:
    match kind:
        case "number":
            known = quantity(value)
            return expression(value) if known is None else show(known[0])
        case "expression":
            return expression(value)
        case "choice":
            return chosen(value) or strip(value)
        case "yes-no":
            return verdict(value) or words(value)
        case "words":
            return words(value)
        case "code":
            return value.strip("\n")
        case "json" | "tool":
            return canonical_json(value) or " ".join(value.split())
        case _:
            return strip(value)


_PASSES = 8
