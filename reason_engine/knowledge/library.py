"""A folder of documents, opened once and then searched: the retriever that a server or a command holds.

Reading and indexing run in a thread of their own. Passages are ranked by words (BM25) and by meaning (cosine of
embeddings), and both ranks are fused. Embeddings are made only where a model for them is named and the engine scores;
without them, and when they fail, words alone decide.

BM25: Robertson & Zaragoza 2009, in Lucene's form, by the `bm25s` package (arXiv 2407.03618), which keeps the scores of
every (word, passage) pair in a sparse matrix. Fusion: Cormack, Clarke & Büttcher 2009, reciprocal ranks:

    score(d) = sum over rankings of 1 / (60 + rank of d)

Departures: words lose the endings of the plural and of the third person (Harman's s-stemmer), and scripts without
spaces are indexed by pairs of signs.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reason_engine.contracts import Engine
from reason_engine.errors import EngineError, RequestError, SetupError
from reason_engine.knowledge.documents import read_folder
from reason_engine.types import Passage, ScoreRequest

log = logging.getLogger("reason_engine.knowledge")

MOST_PASSAGES, BATCH = 200_000, 32
"""Passages of a library, and those that are embedded at once."""
FILES_PER_LINE = 200
"""Files between two lines of progress."""
K, DEPTH = 60, 64
"""Of a fusion: its constant, and the places of each ranking that take part in it."""


class Library:
    """The documents of one folder. `opened` once `open` is done; before that nothing is found.

    Raises SetupError where there is no such folder, or no model of that name that embeds.
    """

    def __init__(self, folder: Path, *, engine: Engine | None = None, model: str | None = None) -> None:
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise SetupError(f"--knowledge {folder}: {what}")
        if engine and model and model not in engine.caps.embeds:
            known = ", ".join([*engine.caps.embeds, "the URL of an endpoint with /v1/embeddings"])
            raise SetupError(f"knowledge_model {model!r}: no model of that name embeds here; one of: {known}")
        self.folder, self.opened = folder, False
        self.passages: list[Passage] = []
        self.skipped: list[tuple[str, str]] = []
        """(file, why) of everything that was left out, in whole or in part."""
        self._engine, self._model = engine, model
        self._index: WordIndex | None = None
        self._vectors: Any = None
        self._halt = threading.Event()

    async def open(self) -> None:
        """Read, index and embed everything."""
        await self.read()
        await self.embed()

    async def read(self) -> None:
        """Read and index; what cannot be read is named in a warning. Never fails on a document."""
        log.info("reading the documents of %s …", self.folder)
        try:
            files = await asyncio.to_thread(self._build)
        except asyncio.CancelledError:
            self._halt.set()
            raise
        write = log.info if self.passages else log.warning
        counts = (len(self.passages), files, self.folder, len(self.skipped))
        write("%d passages of %d files in %s; %d left out", *counts)

    async def embed(self) -> None:
        """Embed what was read, where a model for it is named and the engine, started by now, has it."""
        import numpy as np

        texts = [passage.text for passage in self.passages]
        try:
            parts: list[Any] = []
            if self._engine and self._model:
                for at in range(0, len(texts), BATCH):
                    vectors = await self._vectors_of(self._engine, texts[at : at + BATCH])
                    parts.append(np.asarray(vectors, dtype=np.float32))
            if parts:
                vectors = np.concatenate(parts)
                lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
                self._vectors = vectors / np.where(lengths > 0, lengths, 1.0)
        except (EngineError, RequestError, ValueError) as error:  # ValueError: rows of different lengths
            log.warning("%s does not embed, words alone decide: %s", self._model, error)
        self.opened = True

    async def offer_drafts(self, engine: Engine) -> None:
        """Give the engine the passages as token lists, so that answers that quote them are drafted from them."""
        texts = [passage.text for passage in self.passages]
        try:
            tokens = await asyncio.to_thread(lambda: [engine.tokenize(text) for text in texts])
            await engine.draft_from(tokens)
        except EngineError as error:
            log.warning("nothing is drafted from the documents: %s", error)

    async def retrieve(self, query: str, k: int) -> list[Passage]:
        """The k passages nearest to the query, best first; fewer where fewer have anything in common with it."""
        index = self._index
        if index is None or k < 1:
            return []
        found = await asyncio.to_thread(index.rank, query, DEPTH)
        if self._vectors is not None and self._engine:
            try:
                [vector] = await self._vectors_of(self._engine, [query])
            except (EngineError, RequestError) as error:
                log.warning("the question was not embedded, words alone decide: %s", error)
            else:
                near = nearest(self._vectors, vector, DEPTH)
                found = fuse([[place for place, _ in found], [place for place, _ in near]])
        return [replace(self.passages[place], score=score) for place, score in found[:k]]

    def _build(self) -> int:
        files, seen = 0, set[str]()
        for files, read in enumerate(read_folder(self.folder), 1):
            if self._halt.is_set():
                return files
            warning, room = read.warning, MOST_PASSAGES - len(self.passages)
            fresh = [p for p in read.passages if not (p.text in seen or seen.add(p.text))]
            if len(fresh) > room:
                warning = f"only {room} of its passages fit the library's {MOST_PASSAGES}"
            self.passages.extend(fresh[:room])
            if warning:
                self.skipped.append((read.name, warning))
                log.warning("%s: %s", read.name, warning)
            if files % FILES_PER_LINE == 0:
                log.info("%d files, %d passages so far", files, len(self.passages))
        self._index = WordIndex([passage.text for passage in self.passages])
        return files

    async def _vectors_of(self, engine: Engine, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        name = f"knowledge-{uuid.uuid4().hex}"
        return (await engine.score(ScoreRequest(name, tuple(texts), "embed", self._model))).values


class WordIndex:
    """BM25 over a fixed list of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        # The package sets it to the lowest level.
        logging.getLogger("bm25s").setLevel(logging.WARNING)
        self._index: Any = None
        tokens = [terms(text) for text in texts]
        if any(tokens):
            self._index = bm25s.BM25(method="lucene", backend="numpy")
            self._index.index(tokens, show_progress=False)

    def rank(self, query: str, depth: int) -> list[tuple[int, float]]:
        """(place, score) of the texts that share a word with the query, best first; ties in their order."""
        import numpy as np

        index = self._index
        known = [] if index is None else [term for term in terms(query) if term in index.vocab_dict]
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
    """Places with their summed reciprocal ranks, best first; ties go to the one that stands first."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, place in enumerate(ranking, 1):
            scores[place] = scores.get(place, 0.0) + 1 / (K + rank)
    return sorted(scores.items(), key=lambda item: -item[1])


def terms(text: str) -> list[str]:
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
        plural = word.endswith("ies") and not word.endswith(("eies", "aies"))
        return word[:-3] + "y" if plural else word[:-1]
    return word


_WORD = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]+|[^\W_぀-ヿ㐀-鿿豈-﫿]+")
_DENSE = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]+")
