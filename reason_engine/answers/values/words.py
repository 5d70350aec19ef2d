"""Short words, names and dates as values: lower case, without articles and punctuation (as SQuAD's metric reads them,
Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1), dates as ISO. Part of `answers`.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date

from reason_engine.answers.values.plain import unwrap

MOST = 8
"""Words of the longest short answer."""


def words(value: str) -> str:
    """The value in lower case without articles, punctuation and Markdown; a date as ISO. Idempotent."""
    text = unicodedata.normalize("NFKC", unwrap(value.strip()))
    if (day := iso_date(text)) is not None:
        return day
    text = _APART.sub(" ", _WITHIN.sub("", text.casefold()))
    return " ".join(word for word in text.split() if word not in _ARTICLES) or " ".join(text.split())


def is_short(value: str) -> bool:
    """Whether a value is at most `MOST` words."""
    return len(value.split()) <= MOST


def last_bold(text: str) -> str | None:
    """The last span in bold that is no heading."""
    found = [span.strip() for span in _BOLD.findall(text) if not span.strip().endswith(":")]
    return found[-1] if found else None


def date_in(line: str) -> str | None:
    """The last date that a line holds, as ISO."""
    found = [(match.start(), match[0]) for pattern, _ in _DATES for match in pattern.finditer(line[:_LINE])]
    return iso_date(max(found)[1]) if found else None


def iso_date(text: str) -> str | None:
    """A date as ISO, where the text is one: `4 July 1776`, `July 4th, 1776`, `7/25/2024`, `1776-07-04`."""
    if len(text) > 40:
        return None
    text = " ".join(text.strip(" .").split())
    for pattern, order in _DATES:
        if match := pattern.fullmatch(text):
            year, month, day = (match[place] for place in order)
            number = int(month) if month.isdigit() else _MONTHS.index(month[:3].casefold()) + 1
            try:
                return date(int(year), number, int(day)).isoformat()
            except ValueError:
                return None
    return None


_LINE = 1_000
_ARTICLES = frozenset(("a", "an", "the"))
_WITHIN = re.compile(r"['\u2019`\"\u201c\u201d*]")
_APART = re.compile(r"[^\w\s+\-./:%]|(?<!\d)[.:/]|[.:/](?!\d)|(?<!\w)-|-(?!\w)")
_BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
_MONTH += r"nov(?:ember)?|dec(?:ember)?)\.?"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_DATES = tuple(
    (re.compile(rf"(?<!\w){pattern}(?!\w)", re.IGNORECASE), order)
    for pattern, order in (
        (r"(\d{4})-(\d{1,2})-(\d{1,2})", (1, 2, 3)),
        (rf"(?:the )?{_DAY}(?: of)? {_MONTH},? (\d{{4}})", (3, 2, 1)),
        (rf"{_MONTH} {_DAY},? (\d{{4}})", (3, 1, 2)),
        (r"(1[3-9]|2\d|3[01])[/.](\d{1,2})[/.](\d{4})", (3, 2, 1)),
        (r"(\d{1,2})[/.](1[3-9]|2\d|3[01])[/.](\d{4})", (3, 1, 2)),
    )
)
