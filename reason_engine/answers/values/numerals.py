r"""Numerals in a text, as people and models write them: the marks around them, and each with its value. Part of
`answers`."""

from __future__ import annotations

import re
from fractions import Fraction

from reason_engine.answers.values.plain import LIMIT


def prepare(value: str) -> str:
    """The text with LaTeX, currency and spaces out of its numbers, and fractions written `a/b`."""
    for pattern, new in _REWRITES:
        value = pattern.sub(new, value)
    return value


def numerals(body: str) -> list[re.Match[str]]:
    """Every number; ordinals only where there is nothing else."""
    found = [match for match in NUMERAL.finditer(body) if value_of(match) is not None]
    return [match for match in found if not match["ordinal"]] or found


def value_of(match: re.Match[str]) -> Fraction | None:
    """What a numeral is worth; None for one over nothing."""
    top, bottom = match["top"].replace(",", ""), match["bottom"] or "1"
    if len(top) > LIMIT or Fraction(bottom) == 0:
        return None
    number = (Fraction(match["whole"] or 0)) + Fraction(top) / Fraction(bottom)
    number *= _SCALES.get((match["scale"] or "").strip().casefold(), 1)
    number = number / 100 if match["percent"] else number
    return -number if match["sign"] == "-" else number


def _joined(match: re.Match[str]) -> str:
    return match[0].replace(" ", "")


_REWRITES = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        ("\u2212|\\\\minus", "-"),
        (r"\{,\}", ","),
        (r"(?<=\d):00(?= ?[ap]\.?m\b)", ""),
        (r"(?<![\d.,/])(\d{1,3})((?: \d{3})+)(?![\d/-])", _joined),
        (r"(?<=\d)\\[,!;: ](?=\d)", ""),
        (r"(?<=[\d)]) ?\* ?(?=[\d(])", " \u00d7 "),
        (r"\\[,!;: ]|~|\u00a0|\u202f", " "),
        (r"\\(?:text|textbf|textrm|mathrm|mbox|mathbf)\{ ?([^{}]*)\}", r" \1 "),
        (r"\^ ?\{? ?\\circ ?\}?|\u00b0", " "),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\frac ?\{ ?(-?\d+) ?\} ?\{ ?(\d+) ?\}", r" \1/\2"),
        (r"\\frac ?(\d) ?(\d)", r" \1/\2"),
        (r"- +(?=\d+/)", "-"),
        (r" ?(?:\\times|\\cdot|\u00d7|x) ?10 ?\^ ?\{? ?(-?\d{1,2}) ?\}?", r"e\1"),
        (r"\\(?:approx|simeq|sim|equiv)(?![A-Za-z])|[\u2248\u2243]|==", "="),
        (r"\\%", "%"),
        (r"\\\$|(?:\b(?:US|A|C|NZ)(?=\$))|[$\u20ac\u00a3\u00a5\u20b9]|\b(?:USD|EUR|Rs\.?) ?(?=\d)", ""),
        (r"\\(?:left|right|displaystyle|boxed|fbox)(?![A-Za-z])|\\[()\[\]]|[*`{}]", " "),
    )
)
NUMERAL = re.compile(
    r"(?<![A-Za-z_\d.])(?<!\d:)(?:(?P<sign>(?<![\w)\]])(?<![\d)\]] )(?<!\b[A-Za-z] )[-+]) ?)?"
    r"(?:(?P<whole>\d+)(?: |-| and )(?=\d+ ?/ ?\d))?"
    r"(?P<top>(?:\d{1,3}(?:,\d{3})+(?![\d,]*\d)|\d+)(?:\.\d+|\.(?![\d\w]))?(?:[eE][-+]?\d{1,2}\b)?|\.\d+)"
    r"(?: ?/ ?(?P<bottom>\d+)(?!\d|\.\d))?(?![\d:]\d)(?!\d)(?P<ordinal>(?:st|nd|rd|th)\b)?"
    r"(?P<percent> ?%| per ?cent\b)?(?P<scale> (?:hundred|thousand|million|billion|trillion)\b)?",
    re.IGNORECASE,
)
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
