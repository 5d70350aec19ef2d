"""The two sides around a relation: where each begins and ends, and whether that is certain.

A side ends at the line's end, at a sign of punctuation, another relation, an unpaired bracket, or prose: `she sold
48 / 2 = 24 clips` has the sides `48 / 2` and `24`. The end is certain unless the prose may itself compute (`half of
48 / 2`, `3 at 5 + 2`, `= 3 dozen`), a single letter may be a variable, or a sign stands there that is not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reason_engine.verifiers.process_rules.prose import computes_after, computes_before, joins
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
    certain = depth == 0 and bool(parts) and _certain_before(found, at, parts[0])
    share = max((place for place, part in enumerate(parts) if part.text == OF), default=-1)
    begun = at >= 0 and found[at].kind == "relation"
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
    certain = depth == 0 and bool(parts) and _certain_after(found, at)
    behind = {found[at].text.lower()} if at < len(found) and found[at].kind == "word" else set[str]()
    units = _units(parts) | behind
    shares = (place for place, part in enumerate(parts, relation + 1) if part.text == OF)
    cut = aside or next(shares, 0)
    return Side(parts, certain, units, tuple(found[relation + 1 : cut]) if cut else (), True)


def _certain_before(found: Sequence[Token], at: int, first: Token) -> bool:
    """Whether what stands before the side, at this place, is certainly no part of it."""
    stop, last = found[at] if at >= 0 else _END, found[at - 1] if at > 0 else _END
    if stop.kind == "relation":
        return True
    if stop.kind == "open":
        return last.kind != "operator" and last.kind not in ENDS
    if stop.kind == "border":
        return last.kind != "operator" and not (stop.text == "," and last.kind == "number" and len(first.text) == 3)
    if stop.kind != "word" or first.glued:
        return False
    begin = at
    while begin > 0 and found[begin - 1].kind == "word":
        begin -= 1
    words = [token.text.lower() for token in found[begin : at + 1]]
    after_number = begin > 0 and found[begin - 1].kind in ENDS
    return not computes_before(words) and not (after_number and joins(words))


def _certain_after(found: Sequence[Token], at: int) -> bool:
    """Whether what stands behind the side, at this place, is certainly no part of it."""
    stop = found[at] if at < len(found) else _END
    if stop.kind != "word" or computes_after(stop.text.lower()):
        return stop.kind in ("border", "relation", "close")
    return next((token.kind for token in found[at:] if token.kind != "word"), "border") != "opaque"


def _is_range(parts: Sequence[Token]) -> bool:
    """Whether it is `3-4`, as in "weeks 3-4"."""
    if len(parts) != 3 or parts[1].text != "-" or not (parts[1].glued and parts[2].glued):
        return False
    return parts[0].kind == parts[2].kind == "number" and float(parts[0].text) < float(parts[2].text)


def _units(parts: Sequence[Token]) -> frozenset[str]:
    return frozenset(unit for part in parts for unit in part.units)


_END = Token("border", "")
