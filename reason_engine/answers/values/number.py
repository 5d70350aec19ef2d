r"""Numbers as exact rationals: written `-3`, `1,234.50`, `2 1/2`, `\frac{1}{2}`, `$5`, `50%`, `1.5 \times 10^3`,
`2 million`, `twelve`, with a unit or in a sentence. Part of `answers`.

Of a text with several numbers it is the first after the last equals sign; else the one it starts with, unless that is
a term of a sum; else the last.
"""

from __future__ import annotations

import re
from fractions import Fraction

from reason_engine.answers.values.numerals import NUMERAL, numerals, prepare, value_of
from reason_engine.answers.values.plain import LIMIT
from reason_engine.answers.values.sums import sum_value


def rational(value: str) -> Fraction | None:
    r"""The exact number that a value writes and nothing else: `-3`, `.5`, `1e3`, `1/2`, `\frac{1}{2}`, `50%`."""
    if len(value) > LIMIT:
        return None
    match = NUMERAL.fullmatch(prepare(value).strip())
    return None if match is None or match["scale"] else value_of(match)


def quantity(value: str) -> tuple[Fraction, str] | None:
    """A number and the unit after it, in lower case, where a value is nothing more: `18 apples`, `$5`, `3 km/h`."""
    if len(value) > LIMIT:
        return None
    body = prepare(value).strip().rstrip(" .")
    match = NUMERAL.match(body)
    if match is None or (number := value_of(match)) is None:
        return None
    unit = body[match.end() :].strip()
    return (number, unit.casefold()) if _UNIT.fullmatch(unit) and not _MONTH.match(unit) else None


def reduce_number(text: str, *, percent: bool = False, before: str = "") -> str | None:
    """The number that an answer's text gives, written as `show` does; None where it gives none.

    `percent`: the question asks for a percentage, so the sign is dropped; else `50%` is 0.5. `before`: the work above
    the text; of several numbers in a sentence the one that an equation has just given is meant.
    """
    if (worth := sum_value(text)) is not None:
        return show(worth)
    body = _REMARK.sub(" ", prepare(text[: 4 * LIMIT]))
    left, equals, right = body.rpartition("=")
    after = numerals(right)
    if rounded := _ROUNDED.search(right):
        after = numerals(right[rounded.end() :]) or after
    if equals and after:
        chosen = after[0]
    elif not (known := numerals(left) if equals else after):
        return _word(body)
    else:
        opens = not equals and not body[: known[0].start()].strip() and not _OPERATOR.match(body, known[0].end())
        chosen = known[0] if opens else known[-1]
        if not opens and before and not equals and (given := _last_result(before)) is not None:
            chosen = next((match for match in known if value_of(match) == given), chosen)
    number = value_of(chosen)
    return None if number is None else show(number * 100 if percent and chosen["percent"] else number)


def show(number: Fraction) -> str:
    """A decimal where the number is a short one, else a fraction in lowest terms."""
    if number.denominator == 1:
        return str(number.numerator)
    places = next((n for n in range(1, 13) if 10**n % number.denominator == 0), None)
    if places is None:
        return f"{number.numerator}/{number.denominator}"
    digits = str(abs(number.numerator) * 10**places // number.denominator).rjust(places + 1, "0")
    return f"{'-' if number < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _last_result(before: str) -> Fraction | None:
    """What the last equation of a text gives."""
    _, equals, right = prepare(before[-4 * LIMIT :]).rpartition("=")
    after = numerals(right.partition("\n")[0]) if equals else []
    return value_of(after[0]) if after else None


def _word(body: str) -> str | None:
    found = _WORDS.findall(body.casefold())
    return str(_WORD_VALUES[found[-1]]) if found else None


_UNIT = re.compile(r"(?:[A-Za-z%\u00b5][\w/^\u00b2\u00b3.'-]*(?: |$)){0,4}")
_MONTH = re.compile(r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b|[ap]\.?m\b", re.IGNORECASE)
_OPERATOR = re.compile(
    r" ?(?:[-+*/^\u00d7\u00f7\u2192]|\\times|\\cdot|\\div|x \d|(?:plus|minus|times|divided)\b|: ?\d)"
)
_ROUNDED = re.compile(
    r"\bround(?:s|ed|ing)?(?: (?:it|this))?(?: up| down| off)? to (?!\d+ (?:decimal|significant|place))", re.I
)
_REMARK = re.compile(r"(?<=[\w%]) \([^()=\d]*[A-Za-z][^()]*\)")
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORD_VALUES = {
    **{word: number for number, word in enumerate(f"{_SMALL} eighteen nineteen".split())},
    **{word: 20 + 10 * number for number, word in enumerate(_TENS.split())},
}
_WORDS = re.compile(r"\b(?:" + "|".join(_WORD_VALUES) + r")\b")
