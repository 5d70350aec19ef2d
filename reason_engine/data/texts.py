"""What texts are compared by: words, n-grams, numbers, spans that a rewrite must leave, language, near duplicates.

`language_of` asks lingua's n-gram models, once code, formulas and addresses are taken out. A text is undecided (None)
where the relative distance between the two likeliest languages is under 0.9. Departures: the light models, since the
full ones take four seconds and 430 MB to load and are five times slower on a short question; only the languages listed
below, so that relatives which are not listed (Norwegian, Catalan, Bulgarian) come out as a neighbour or undecided.

`NearIndex` finds near duplicates by MinHash (Broder 1997) in bands, by datasketch. Candidates share one of b bands of r
values, which happens with probability 1 - (1 - J^r)^b (Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets",
section 3.4). r is the largest that finds a pair at the threshold with probability 0.99; datasketch's own choice weighs
misses and false alarms alike and finds an eighth fewer. Shingles are runs of five words, as in Lee et al. 2022
(arXiv:2107.06499). Departures: a candidate is confirmed by the estimate, not by the exact similarity, so that texts
need not be kept (a standard error of 0.035 at J = 0.8); texts of fewer than five words are one shingle. A kept text
costs 7.5 KB at a threshold of 0.8.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasketch import LeanMinHash
    from lingua import LanguageDetector

PERMUTATIONS, SHINGLE, FOUND = 128, 5, 0.99
LANGUAGES = (
    "ar", "da", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "id", "it", "ja", "ko", "nl", "pl", "pt", "ru",
    "sv", "th", "tr", "uk", "zh",
)  # fmt: skip
"""Every language that can be found, by its two-letter code."""


def squeeze(text: str) -> str:
    """The text with one spelling of each letter and single spaces; equal texts are equal after it."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def words(text: str) -> list[str]:
    """Lower-case words and numbers, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFC", text).casefold())


def grams(found: Sequence[str], n: int) -> Iterator[str]:
    """Every run of n words."""
    return (" ".join(found[place : place + n]) for place in range(len(found) - n + 1))


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


def language_of(text: str) -> str | None:
    """The language as its two-letter code, or None where the text does not tell."""
    found = _detector().detect_language_of(unicodedata.normalize("NFC", without_kept(text)[:_READ]))
    return found.iso_code_639_1.name.lower() if found else None


class NearIndex:
    """The signatures of the texts kept so far. The hash functions are drawn from a fixed seed."""

    def __init__(self, threshold: float, permutations: int = PERMUTATIONS) -> None:
        from datasketch import MinHash, MinHashLSH

        rows = band_rows(threshold, permutations)
        self._index = MinHashLSH(num_perm=permutations, params=(permutations // rows, rows))
        self._hash = MinHash(permutations, seed=1997, hashfunc=lambda shingle: digest(shingle) >> 32)
        self._threshold = threshold
        self._kept: list[LeanMinHash] = []

    def signature(self, words: Sequence[str]) -> LeanMinHash:
        """The minima over the shingles of a text that is given as words; two are compared by `jaccard`."""
        from datasketch import LeanMinHash

        shingles = list(set(grams(words, SHINGLE))) or [" ".join(words)]
        self._hash.clear()
        for start in range(0, len(shingles), _BLOCK):  # in blocks, so that a long text needs little memory
            self._hash.update_batch(shingles[start : start + _BLOCK])
        return LeanMinHash(self._hash)

    def near(self, signature: LeanMinHash) -> list[tuple[int, float]]:
        """Every kept text at or above the threshold, most similar first."""
        found: list[Any] = self._index.query(signature)
        pairs = [(one, signature.jaccard(self._kept[one])) for one in found]
        return sorted((p for p in pairs if p[1] >= self._threshold), key=lambda pair: (-pair[1], pair[0]))

    def add(self, signature: LeanMinHash) -> int:
        """Keep a signature; its number."""
        number = len(self._kept)
        self._index.insert(number, signature, check_duplication=False)
        self._kept.append(signature)
        return number


def band_rows(threshold: float, permutations: int) -> int:
    """The most values a band may have so that a pair at the threshold is found with probability 0.99."""
    return max((r for r in range(1, 33) if 1 - (1 - threshold**r) ** (permutations // r) >= FOUND), default=1)


@cache
def _detector() -> LanguageDetector:
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    codes = [IsoCode639_1.from_str(code.upper()) for code in LANGUAGES]
    builder = LanguageDetectorBuilder.from_iso_codes_639_1(*codes).with_low_accuracy_mode()
    return builder.with_minimum_relative_distance(_DISTANCE).build()


def _plain(number: str) -> str:
    whole, _, rest = number.replace(",", "").partition(".")
    return f"{whole.lstrip('0') or '0'}.{rest.rstrip('0')}".rstrip(".")


def _in_words(text: str) -> Counter[str]:
    return Counter(_NAMES[word] for word in _LETTERS.findall(text.casefold()) if word in _NAMES)


_READ, _BLOCK, _DISTANCE = 20_000, 4096, 0.9
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
