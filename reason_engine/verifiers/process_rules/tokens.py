"""The tokens of a line in plain notation, with the units taken from the numbers that they belong to.

`5 snakes/jaguar * 6 jaguars = 30 snakes` becomes `5 * 6 = 30 [snakes]`: words between a number and an operator, a
closing bracket or a relation are its unit. Words that are no unit there (a variable, "the", "is") become OPAQUE, since
what is computed then is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from reason_engine.verifiers.process_rules.prose import is_unit

Kind = Literal["number", "operator", "open", "close", "relation", "border", "word", "percent", "opaque"]
MOST_WORDS = 6
"""Words of a unit."""
OF = "of"
"""The operator of `20 % of 50`."""
ENDS = frozenset({"number", "close", "percent"})
STARTS = frozenset({"number", "open"})


@dataclass(frozen=True, slots=True)
class Token:
    """`glued`: no space before it. `units`: the words of a number's unit, lower-cased."""

    kind: Kind
    text: str
    glued: bool = False
    units: tuple[str, ...] = ()


def tokens(line: str) -> list[Token]:
    """The tokens of one line."""
    return _united(list(_scan(line)))


def _scan(line: str) -> Iterator[Token]:
    end, money = 0, False
    for match in _TOKEN.finditer(line):
        kind, text, glued = match.lastgroup, match[0], match.start() == end and end > 0
        end = match.end()
        if kind == "money":
            money = True
            end = match.end() if glued or not match.start() else -1
            continue
        if kind == "number":
            yield Token("number", text, glued, ("dollars",) if money else ())
        elif kind == "measure":
            digits = re.match(r"\d*\.?\d+", text)
            unit = text[digits.end() :].lstrip("-") if digits else ""
            known = unit.lower() in _GLUED or ("-" in text and len(unit) > 1)
            if digits and known:
                yield Token("number", digits[0], glued)
                yield Token("word", unit)
            else:
                yield Token("opaque", text, glued)
        else:
            yield Token("opaque" if kind == "strange" else cast(Kind, kind), text, glued)
        money = False


def _united(found: Sequence[Token]) -> list[Token]:
    """Each run of words as a unit, as multiplication ("of" after a share), as prose, or as OPAQUE."""
    made: list[Token] = []
    at = 0
    while at < len(found):
        stop = _run(found, at, bool(made) and made[-1].kind in ENDS)
        if stop == at:
            made.append(found[at])
            at += 1
            continue
        words = [token for token in found[at:stop] if token.kind == "word"]
        before = made[-1] if made else Token("border", "")
        after = found[stop] if stop < len(found) else Token("border", "")
        variable = found[at].kind == "word" and found[at].glued and before.kind in ENDS
        made += [Token("opaque", words[0].text)] if variable else _read(words, before, after, made)
        at = stop
    return made


def _run(found: Sequence[Token], at: int, after_number: bool) -> int:
    """Where the words that begin here end, brackets of words alone and slashes before words with them."""
    place = at
    while place < len(found):
        token = found[place]
        following = found[place + 1].kind if place + 1 < len(found) else ""
        if token.kind == "word":
            place += 1
        elif token.text == "/" and following == "word" and (place > at or after_number):
            place += 2
        elif token.kind == "open" and following == "word" and not token.glued and (place > at or after_number):
            close = place + 1
            while close < len(found) and found[close].kind == "word":
                close += 1
            if close == len(found) or found[close].kind != "close" or close == place + 1:
                break
            place = close + 1
        else:
            break
    return place


def _read(words: list[Token], before: Token, after: Token, made: list[Token]) -> list[Token]:
    names = tuple(word.text.lower() for word in words)
    if any(word.text in "xyzXYZ" for word in words) or (after.kind == "operator" and len(names[-1]) == 1):
        return [Token("opaque", " ".join(names))]
    ends_side = after.kind in ("operator", "close", "relation")
    if before.kind in ENDS and ends_side:
        if len(names) > MOST_WORDS or any(not is_unit(name) for name in names):
            return [Token("opaque", " ".join(names))]
        made[-1] = replace(before, units=before.units + names)
        return []
    share = before.kind == "percent" or before.text == "⟧" or (before.kind == "number" and _is_fraction(made))
    if after.kind in STARTS and names in (("of",), ("of", "the")) and share:
        return [Token("operator", OF)]
    if before.kind == "operator" or ends_side or (before.kind == "relation" and after.kind in STARTS):
        return [Token("opaque", " ".join(names))]
    return words


def _is_fraction(made: Sequence[Token]) -> bool:
    return len(made) > 1 and made[-2].text == "/"


_SHORT = "cm mm km kg mg ft in oz lb lbs hr hrs min mins sec secs ml mph kwh gb cents yd yds"
_GLUED = frozenset(_SHORT.split())
_TOKEN = re.compile(
    r"""(?P<opaque>[0-9]+(?:[:,][0-9]+)+ | (?<![0-9.])0[0-9]+ | [0-9]+(?:\.[0-9]+){2,} | [^\W_]*_[\w§]*
          | [A-Za-z]\w*[0-9]\w* | [0-9]{31,} | [0-9.]*[0-9]§ )
      | (?P<measure>[0-9]*\.?[0-9]+ (?:-?[A-Za-z]+(?:-[A-Za-z]+)*) \w* )
      | (?P<number>[0-9]+(?:\.[0-9]+)? | (?<![\w.])\.[0-9]+ )
      | (?P<relation>[=≈])
      | (?P<operator>[-+*/^√!])
      | (?P<open>[(\[{⟦]) | (?P<close>[)\]}⟧])
      | (?P<percent>%)
      | (?P<border>[.,;:?<>\n\u2014"\u201c\u201d])
      | (?P<word>[^\W\d_]+(?:['\u2019-][^\W\d_]+)*['\u2019]?)
      | (?P<money>¤\s?)
      | (?P<strange>\S)""",
    re.VERBOSE,
)
