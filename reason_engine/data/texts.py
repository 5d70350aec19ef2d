"""Texts as words, n-grams, numbers, and spans that a rewrite must leave: what texts are compared by."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b


def squeeze(text: str) -> str:
    """The text with one spelling of each letter and single spaces; equal texts are equal after it."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def words(text: str) -> list[str]:
    """Lower-case words and numbers, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFC", text).casefold())


def grams(found: Sequence[str], n: int) -> Iterator[str]:
    """Every run of n words."""
    for place in range(len(found) - n + 1):
        yield " ".join(found[place : place + n])


def digest(text: str) -> int:
    """A number of 64 bits for a text, the same on every machine and in every run."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def numbers(text: str) -> tuple[str, ...]:
    """The numbers written in digits, in order: `1,000` is `1000`, `2.50` is `2.5`."""
    return tuple(_plain(match[0]) for match in _NUMBER.finditer(text))


def same_numbers(a: str, b: str) -> bool:
    """Whether two texts name the same numbers equally often, in digits or in words.

    A one in words counts only where the other text has the digit: "one of them" is no number.
    """
    digits_a, digits_b = Counter(numbers(a)), Counter(numbers(b))
    all_a, all_b = digits_a + _in_words(a), digits_b + _in_words(b)
    if digits_a - all_b or digits_b - all_a:
        return False
    for count in (all_a, all_b):
        del count["1"]
    return all_a == all_b


def kept_spans(text: str) -> list[tuple[int, int]]:
    """Where code, formulas, addresses and placeholders stand: what a rewrite must leave as it is."""
    return [match.span() for match in _KEPT.finditer(text)]


def kept(text: str) -> Counter[str]:
    """What stands there, with its count."""
    return Counter(text[start:end] for start, end in kept_spans(text))


def without_kept(text: str) -> str:
    """The prose alone."""
    return _KEPT.sub(" ", text)


def excerpt(text: str, start: int, end: int, around: int = 30) -> str:
    """A piece of the text as evidence, on one line."""
    return " ".join(text[max(0, start - around) : min(len(text), end + around, start + 160)].split())


def _plain(number: str) -> str:
    number = number.replace(",", "")
    whole, dot, rest = number.partition(".")
    rest = rest.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{rest}" if dot and rest else "")


def _in_words(text: str) -> Counter[str]:
    return Counter(_NAMES[word] for word in _LETTERS.findall(text.casefold()) if word in _NAMES)


_WORD = re.compile(r"\w+")
_LETTERS = re.compile(r"[a-z]+")
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?")
_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_NAMES = {name: str(value) for value, name in enumerate(_UNITS)} | {
    "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90",
    "hundred": "100", "thousand": "1000", "million": "1000000",
}  # fmt: skip
_KEPT = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`|\$\$.+?\$\$|\$(?=[^\s\d])[^$\n]*?[^\s$]\$|\$\d[^$\n]*[\\^_={][^$\n]*\$"
    r"|\\\(.+?\\\)|\\\[.+?\\\]"
    r"|https?://[^\s)>\]]+|[\w.+-]+@[\w-]+\.[\w.-]*\w|\{\w+\}|<[/\w][^<>\n]{0,80}>",
    re.DOTALL,
)
