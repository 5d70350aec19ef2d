"""Ranks passages: BM25 by words, cosine by meaning, and the fusion of both ranks.

BM25: Robertson & Zaragoza 2009, in Lucene's form, by the `bm25s` package (arXiv 2407.03618), which keeps the scores of
every (word, passage) pair in a sparse matrix. Fusion: Cormack, Clarke & Büttcher 2009, reciprocal ranks:

    score(d) = sum over rankings of 1 / (60 + rank of d)

Departures: words lose the endings of the plural and of the third person (Harman's s-stemmer), and scripts without
spaces are indexed by pairs of signs.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

K = 60
DEPTH = 64
"""Places of each ranking that take part in a fusion."""


class Words:
    """BM25 over a fixed list of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        # Set by the package to tell everything.
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        self._index: Any = None
        tokens = [words(text) for text in texts]
        if any(tokens):
            self._index = bm25s.BM25(method="lucene", backend="numpy")
            self._index.index(tokens, show_progress=False)

    def rank(self, query: str, depth: int) -> list[tuple[int, float]]:
        """(place, score) of the texts that share a word with the query, best first; ties in their order."""
        import numpy as np

        index = self._index
        known = [] if index is None else [word for word in words(query) if word in index.vocab_dict]
        if index is None or not known:
            return []
        scores = index.get_scores(known)
        best = np.argsort(-scores, kind="stable")[:depth]
        return [(int(place), float(scores[place])) for place in best if scores[place] > 0]


def nearest(vectors: Any, query: Sequence[float], depth: int) -> list[tuple[int, float]]:
    """(row, cosine) of the rows nearest to the query, best first. Rows have length 1."""
    import numpy as np

    given = np.asarray(query, dtype=np.float32)
    scores = vectors @ (given / (np.linalg.norm(given) or 1.0))
    return [(int(row), float(scores[row])) for row in np.argsort(-scores, kind="stable")[:depth]]


def fuse(rankings: Sequence[Sequence[int]]) -> list[tuple[int, float]]:
    """Places with their summed reciprocal ranks, best first; ties go to the one that was met first."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, place in enumerate(ranking, 1):
            scores[place] = scores.get(place, 0.0) + 1 / (K + rank)
    return sorted(scores.items(), key=lambda item: -item[1])


def words(text: str) -> list[str]:
    """What is indexed of a text, in order."""
    found: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        if _DENSE.fullmatch(word) and len(word) > 1:
            found.extend(word[at : at + 2] for at in range(len(word) - 1))
        else:
            found.append(_stem(word))
    return found


def _stem(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")):
        if word.endswith("ies") and not word.endswith(("eies", "aies")):
            return word[:-3] + "y"
        return word[:-1]
    return word


_WORD = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]+|[^\W_぀-ヿ㐀-鿿豈-﫿]+")
_DENSE = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]+")
