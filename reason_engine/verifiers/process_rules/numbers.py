"""Every number of a text, in order: digits, decimals, percentages (both 20 and 1/5), and small number words."""

from __future__ import annotations

import re
from fractions import Fraction

from reason_engine.verifiers.process_rules.notation import LONGEST

MOST = 50 * LONGEST
"""Characters of a text beyond which no numbers are looked for."""


def numbers(text: str) -> list[Fraction]:
    """The numbers of a text in any language of signs; a currency's sign is no part of one."""
    found: list[Fraction] = []
    for match in _NUMBER_OR_WORD.finditer(_THOUSANDS.sub("", text[:MOST])):
        if match["word"]:
            found.append(Fraction(_WORDS[match["word"].lower()]))
        else:
            value = Fraction(match["number"])
            found += [value, value / 100] if match["percent"] else [value]
    return found


_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_TENS = "thirty forty fifty sixty seventy eighty ninety"
_WORDS: dict[str, Fraction] = {
    **{word: Fraction(value) for value, word in enumerate(_SMALL.split())},
    **{word: Fraction(10 * value) for value, word in enumerate(_TENS.split(), 3)},
    "hundred": Fraction(100), "thousand": Fraction(1000), "dozen": Fraction(12), "half": Fraction(1, 2),
    "halves": Fraction(1, 2), "third": Fraction(1, 3), "quarter": Fraction(1, 4), "twice": Fraction(2),
    "double": Fraction(2), "doubles": Fraction(2), "triple": Fraction(3), "triples": Fraction(3), "thrice": Fraction(3),
    "once": Fraction(1),
}  # fmt: skip
_NUMBER_OR_WORD = re.compile(
    r"(?<![\w.])(?P<number>\d{1,30}(?:\.\d{1,30})?)(?P<percent>\s?%|\spercent)?|\b(?P<word>"
    + "|".join(_WORDS)
    + r")\b",
    re.IGNORECASE,
)
