"""The two sides around a relation: where each begins and ends, and whether that is certain.

A side ends at the line's end, at a sign of punctuation, another relation, an unpaired bracket, or prose: `she sold
48 / 2 = 24 clips` has the sides `48 / 2` and `24`. The end is certain unless the prose may itself compute (`half of 48 /
2`, `3 at 5 + 2`, `= 3 dozen`), a single letter may be a variable, or a sign stands there that is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reason_engine.verifiers.process_rules.tokens import ENDS, OF, Token

PARTS = frozenset({"number", "operator", "open", "close", "percent"})


@dataclass(frozen=True, slots=True)
class Side:
    """`shorter`: the same without what may be of the text around it: a last bracket, the other part of a share ("1/3
    of 150", "10 % of 400 + 1580"). `begun`: it begins at a relation, so that nothing of it can be missing."""

    parts: tuple[Token, ...]
    certain: bool
    units: frozenset[str] = frozenset()
    shorter: tuple[Token, ...] = ()
    begun: bool = False

    @property
    def bare(self) -> bool:
        """Whether it is a number and nothing else, a sign and a percent mark aside."""
        kinds = [part.kind for part in self.parts if part.text not in "-+"]
        return kinds in (["number"], ["number", "percent"])

    @property
    def computes(self) -> bool:
        """Whether an operator stands between numbers."""
        return any(
            part.kind == "operator" and number > 0 and self.parts[number - 1].kind in ENDS
            for number, part in enumerate(self.parts)
        )

    def __str__(self) -> str:
        words = " ".join(part.text for part in self.parts)
        return words.replace("⟦", "(").replace("⟧", ")").replace("( ", "(").replace(" )", ")").replace(" %", "%")


def left_side(found: Sequence[Token], relation: int) -> Side:
    """What stands before the relation at this place."""
    at, depth = relation - 1, 0
    while at >= 0:
        token = found[at]
        if token.kind not in PARTS or (token.kind == "open" and depth == 0):
            break
        depth += (token.kind == "close") - (token.kind == "open")
        at -= 1
    parts = tuple(found[at + 1 : relation])
    stop = found[at] if at >= 0 else Token("border", "")
    certain = depth == 0 and bool(parts) and _certain_before(found[:at], stop, parts[0])
    if certain and stop.kind == "word":
        certain = not _number_before(found, at)
    share = max((place for place, part in enumerate(parts) if part.text == OF), default=-1)
    begun = stop.kind == "relation"
    return Side(parts, certain and not _is_range(parts), _units(parts), parts[share + 1 :] if share > 0 else (), begun)


def right_side(found: Sequence[Token], relation: int) -> Side:
    """What stands behind it."""
    at, depth, aside = relation + 1, 0, 0
    while at < len(found):
        token = found[at]
        if token.kind not in PARTS or (token.kind == "close" and depth == 0):
            break
        if token.kind == "open" and depth == 0 and not token.glued and found[at - 1].kind in ENDS:
            aside = at
        depth += (token.kind == "open") - (token.kind == "close")
        at += 1
    if depth and aside:  # an aside of the text in brackets, with words in it
        inner = next((token for token in found[aside + 1 : at + 1] if token.kind not in PARTS), None)
        prose = inner is not None and (inner.kind == "border" or (inner.kind == "word" and len(inner.text) > 1))
        parts = tuple(found[relation + 1 : aside])
        return Side(parts, prose, _units(parts), begun=True)
    parts = tuple(found[relation + 1 : at])
    stop = found[at] if at < len(found) else Token("border", "")
    certain = depth == 0 and bool(parts) and parts[-1].kind in ENDS | {"operator"} and _certain_after(found, at, stop)
    units = _units(parts) | ({stop.text.lower()} if stop.kind == "word" else set())
    shares = (place for place, part in enumerate(parts, relation + 1) if part.text == OF)
    cut = aside or next(shares, 0)
    return Side(parts, certain, units, tuple(found[relation + 1 : cut]) if cut else (), True)


def _certain_before(before: Sequence[Token], stop: Token, first: Token) -> bool:
    last = before[-1].kind if before else "border"
    if stop.kind == "relation":
        return True
    if stop.kind in ("border", "open"):
        thousands = stop.text == "," and last == "number" and len(first.text) == 3
        return last != "operator" and not thousands and not (stop.kind == "open" and last in ENDS)
    if stop.kind != "word" or first.glued:
        return False
    whole = stop.text == "of" and last == "word" and before[-1].text.lower() in _WHOLES
    return whole or _is_prose(stop.text, _COMPUTES_BEFORE)


def _certain_after(found: Sequence[Token], at: int, stop: Token) -> bool:
    if stop.kind in ("border", "relation", "close"):
        return True
    if stop.kind != "word" or not _is_prose(stop.text, _COMPUTES_AFTER):
        return False
    following = next((token for token in found[at:] if token.kind != "word"), Token("border", ""))
    return following.kind != "opaque"


def _is_range(parts: Sequence[Token]) -> bool:
    """Whether it is `3-4`, as in "weeks 3-4"."""
    if len(parts) != 3 or parts[1].text != "-" or not (parts[1].glued and parts[2].glued):
        return False
    return parts[0].kind == parts[2].kind == "number" and float(parts[0].text) < float(parts[2].text)


def _is_prose(word: str, barred: frozenset[str]) -> bool:
    return word.lower() not in barred and (len(word) > 1 or word in "aAI")


def _number_before(found: Sequence[Token], at: int) -> bool:
    """Whether the prose that ends here follows a number at once, by a word that may join the two."""
    words: list[str] = []
    while at >= 0 and found[at].kind == "word":
        words.append(found[at].text.lower())
        at -= 1
    joined = any(word in _JOINS for word in words) and not any(word in _PARTS for word in words)
    return at >= 0 and found[at].kind in ENDS and joined


def _units(parts: Sequence[Token]) -> frozenset[str]:
    return frozenset(unit for part in parts for unit in part.units)


_NUMBER_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty sixty seventy eighty "
    "ninety hundred thousand million billion dozen half third quarter fourth fifth sixth eighth tenth thirds quarters"
)
_COMPUTES_BEFORE = frozenset(
    f"{_NUMBER_WORDS} of times plus minus over by twice double triple thrice than sqrt root mod modulo log ln sin cos "
    "tan negative square cube squared cubed base not isn't percent per".split()
)
_COMPUTES_AFTER = frozenset(
    "hundred thousand million billion trillion hundreds thousands millions billions dozen dozens score gross pair k "
    "plus minus over divided multiplied squared cubed mod modulo half halves third thirds quarters fourths fifths "
    "sixths tenths hundredths remainder rem r base am pm o'clock".split()
)
_JOINS = frozenset("at and by plus with times for of each to from on in per into out over".split())
_WHOLES = frozenset(
    "total average pace distance profit cost rate speed amount price area perimeter volume score weight height age "
    "length width income loss discount value mean".split()
)
_PARTS = frozenset(
    "is are was were has have had makes make made costs cost takes take took so because then total equals means leaves "
    "that's earns earned needs pays paid gives".split()
)
