"""What the words around an expression may do to it: be a unit, compute, join a number before to it, or nothing."""

from __future__ import annotations

from collections.abc import Sequence


def is_unit(name: str) -> bool:
    """Whether a word may be a unit, or part of one: no variable, no word that computes or begins another thought."""
    return len(name) > 1 and name not in _NO_UNITS


def computes_before(words: Sequence[str]) -> bool:
    """Whether the words before an expression may belong to what is computed: half of, twice, 3 times, a variable.
    "A total of" does not."""
    if words[-1] == "of" and len(words) > 1 and words[-2] in _WHOLES:
        return False
    return words[-1] in _BEFORE or _is_variable(words[-1])


def computes_after(word: str) -> bool:
    """Whether the word behind an expression may belong to it: dozen, thousand, squared, a variable."""
    return word in _AFTER or _is_variable(word)


def joins(words: Sequence[str]) -> bool:
    """Whether words between a number and an expression may make one of both ("3 at 5 + 2", not "3 and so he has")."""
    return any(word in _JOINTS for word in words) and not any(word in _PARTINGS for word in words)


def _is_variable(word: str) -> bool:
    return len(word) == 1 and word not in "ai"


def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty seventy eighty "
    "ninety hundred thousand million billion dozen half third quarter fourth fifth sixth eighth tenth thirds quarters"
)
_BEFORE = _words(
    _NUMBERS,
    "of times plus minus over by twice double triple thrice than sqrt root mod modulo log ln sin cos tan negative",
    "square cube squared cubed base not isn't percent per",
)
_AFTER = _words(
    "hundred thousand million billion trillion hundreds thousands millions billions dozen dozens score gross pair k",
    "plus minus over divided multiplied squared cubed mod modulo half halves third thirds quarters fourths fifths",
    "sixths tenths hundredths remainder rem r base am pm o'clock",
)
_NO_UNITS = _words(
    _NUMBERS,
    "the an is are was were has have had be been and or but then so that which who if when while because since as",
    "than times plus minus divided multiplied by halves twice double triple he she they it we you his her their its",
    "our there this these those gives equals equal get gets got dozens hundreds thousands millions squared cubed",
    "square cube mod modulo over remainder fifths sixths score gross sin cos tan log ln sqrt root",
)
_JOINTS = _words("at and by plus with times for of each to from on in per into out over")
_WHOLES = _words(
    "total average pace distance profit cost rate speed amount price area perimeter volume score weight height age",
    "length width income loss discount value mean",
)
_PARTINGS = _words(
    "is are was were has have had makes make made costs cost takes take took so because then total equals means",
    "leaves that's earns earned needs pays paid gives",
)
