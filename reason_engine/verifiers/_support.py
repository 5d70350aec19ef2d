"""How far quoted sources bear a sentence out.

    support(s) = max over passages p of  |words(s) & words(p)| / |words(s)|,   halved for each number of s that p lacks

Words are lower-cased, without endings of plurals and tenses and without the most common ones. A measure of wording,
not of meaning: it tells an invented fact from a quoted one, not a true one from its negation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from reason_engine.types import Passage
from reason_engine.verifiers._equations import numbers


def support(text: str, passages: Sequence[Passage]) -> float:
    """From 0 to 1; 1 for a sentence without any word that counts."""
    claim = _CITED.sub(" ", text)
    words, figures = _words(claim), set(numbers(claim))
    if not words and not figures:
        return 1.0
    best = 0.0
    for passage in passages:
        there = _words(passage.text)
        share = len(words & there) / len(words) if words else 1.0
        best = max(best, share * 0.5 ** len(figures - set(numbers(passage.text))))
    return best


def _words(text: str) -> set[str]:
    found = (word for word in _WORD.findall(text.lower()[:10_000]) if word not in _COMMON)
    return {word.removesuffix("'s").removesuffix("es").removesuffix("s").removesuffix("ed") for word in found}


_WORD = re.compile(r"[^\W\d_][\w'-]+")
_CITED = re.compile(r"\[\d{1,3}\]|^\s*[Aa]nswer:")
_COMMON_WORDS = (
    "the an and or of to in on at by for from with as is are was were be been it its this that these those he she they "
    "his her their has have had do does did not so then there here which who what when how much many more now"
)
_COMMON = frozenset(_COMMON_WORDS.split())
