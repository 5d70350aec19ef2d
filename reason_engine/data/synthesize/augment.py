"""`reason data augment`: the same problems in other words; the answers stay as they are.

    synonyms           listed words exchanged, without a model: EDA, Wei and Zou 2019 (arXiv:1901.11196), section 2, SR
    paraphrase         a model rewrites the question
    back-translation   into a pivot language and back: Sennrich et al. 2016 (arXiv:1511.06709), on inputs

What comes back counts only if it is sound: the same numbers equally often, code and formulas as they were, the same
language, between half and twice as long, not the same text again; and with `check_answer` only if the model, asked the
new question by a strategy, still reaches the known answer.

Of the words that have a synonym a share is exchanged, drawn by seed. Left as they are: numbers, code, formulas and
addresses; names (a capital inside a sentence); words that the answer uses, so that both still speak of one thing; and a
word after "a" or "an" whose synonym would need the other. Departures: the lexicon is the user's or a short list of
words that are safe in most senses, not WordNet; stop words need no list, since only listed words change.

Every attempt is a line of the journal beside OUT, so a run that was broken off goes on; OUT holds the new rows (after
the old ones with `keep_originals`), each with its `provenance`, and `.dropped.jsonl` every other attempt with reason
and evidence.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from reason_engine.data import Options
from reason_engine.data.formats.readers import RowFile, open_source
from reason_engine.data.formats.rows import Row, Text, answer_text, known_answer, question_of, to_json, with_question
from reason_engine.data.outputs import Account, Journal, Outputs, Refusal, Tally, beside, file_hash, work_through
from reason_engine.data.synthesize.checks import cleaned, rewrite_fault
from reason_engine.data.synthesize.teacher import Reply, Teacher, build_strategy, seed_of
from reason_engine.data.texts import kept_spans, language_of, squeeze, words
from reason_engine.errors import SetupError
from reason_engine.types import Problem

Lexicon = Mapping[str, tuple[str, ...]]
Method = Literal["synonyms", "paraphrase", "back-translation"]


class AugmentConfig(Options):
    """How rows are multiplied. `copies`: attempts a row and method. `rate`: share of listed words exchanged."""

    methods: tuple[Method, ...] = Field(("paraphrase",), min_length=1)
    copies: int = Field(1, ge=1, le=100)
    format: str | None = None
    rate: float = Field(0.2, gt=0, le=1)
    lexicon: Path | None = None
    pivot: str = Field("German", min_length=1)
    temperature: float = Field(0.7, ge=0, le=2)
    check_answer: bool = False
    strategy: str = "chain-of-thought"
    options: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    keep_originals: bool = False
    seed: int = 0

    @property
    def needs_model(self) -> bool:
        return self.check_answer or set(self.methods) != {"synonyms"}


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One attempt at the row of a line."""

    line: int
    row: Row
    method: Method
    copy: int

    @property
    def key(self) -> str:
        return f"{self.line}/{self.method}/{self.copy}"


async def augment(
    path: Path,
    out: Path,
    config: AugmentConfig,
    teacher: Teacher | None,
    *,
    tokens: int | None = None,
    concurrency: int = 8,
    fresh: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Account:
    """Multiply the rows of a file. `teacher` may be None where only synonyms are exchanged. `tokens`: the budget of
    the whole run, earlier parts of it included. Raises SetupError or RequestError before a token is spent where
    something is wrong, EngineError where the engine fails; what is done by then is kept."""
    file = open_source(path, config.format)
    build_strategy(config.strategy, config.options)
    lexicon = load_lexicon(config.lexicon) if "synonyms" in config.methods else {}
    if teacher is None and config.needs_model:
        raise SetupError(f"{', '.join(config.methods)}: needs a model")
    model = teacher.engine.info.name if teacher else "none"
    head = {"run": "augment", "input": file_hash(path), "model": model, "config": config.model_dump(mode="json")}
    with Outputs(out, (path,)) as outputs:
        journal, tally = Journal(beside(out, "journal"), head, fresh=fresh), Tally(outputs)
        teacher = teacher.within(tokens, journal.spent) if teacher else None
        run = _Run(config, teacher, lexicon, journal, progress)
        await work_through(run.missing(file), concurrency, run.attempt)
        for place, row, raw in tally.read(file):
            if config.keep_originals:
                outputs.keep(raw)
            await run.write_rows(place, row, raw, tally, model)
        return tally.finish(head, file, journal.spent)


@dataclass(slots=True)
class _Run:
    """Makes the attempts that the journal does not hold yet, and rows of what it holds."""

    config: AugmentConfig
    teacher: Teacher | None
    lexicon: Lexicon
    journal: Journal
    progress: Callable[[int], None]
    done: int = 0

    def missing(self, file: RowFile) -> Iterator[_Attempt]:
        """The attempts to make, in order."""
        for found in file:
            if found.row is not None:
                attempts = self._attempts(found.line, found.row)
                yield from (attempt for attempt in attempts if attempt.key not in self.journal)

    async def attempt(self, attempt: _Attempt) -> bool:
        """Make one; False where the budget is spent."""
        entry = await self._entry(attempt)
        if entry is None:
            return False
        self.journal.add(attempt.key, entry)
        self.done += 1
        self.progress(self.done)
        return True

    async def write_rows(
        self, place: Mapping[str, Any], row: Row, raw: Mapping[str, Any], tally: Tally, model: str
    ) -> None:
        """The rows that the journal's attempts at one row came to; the others are dropped."""
        seen: set[str] = set()
        for attempt in self._attempts(place["line"], row):
            entry = self.journal.entry(attempt.key)
            if entry is None:
                tally.not_attempted += 1
                continue
            origin = {"method": attempt.method, "copy": attempt.copy, "seed": seed_of(self.config.seed, attempt.key)}
            if refusal := await self._refusal(attempt, entry, seen):
                tally.drop(refusal, place, {**origin, "text": entry.get("text", ""), "row": raw})
                continue
            seen.add(squeeze(entry["text"]).casefold())
            provenance = {**place, **origin, "model": model if attempt.method != "synonyms" else None}
            tally.keep({**to_json(with_question(row, entry["text"])), "provenance": provenance})

    def _attempts(self, line: int, row: Row) -> Iterator[_Attempt]:
        kinds = product(dict.fromkeys(self.config.methods), range(self.config.copies))
        return (_Attempt(line, row, method, copy) for method, copy in kinds)

    async def _entry(self, attempt: _Attempt) -> dict[str, Any] | None:
        """What the attempt came to, as the journal keeps it; None where the budget is spent."""
        config, before = self.config, question_of(attempt.row)
        seed = seed_of(config.seed, attempt.key)
        if config.check_answer and known_answer(attempt.row) is None:
            return {"failed": "no-known-answer"}
        entry: dict[str, Any] | None
        if attempt.method == "synonyms":
            answer = "" if isinstance(attempt.row, Text) else answer_text(attempt.row)
            entry = {"text": replace_words(before, answer, self.lexicon, config.rate, seed)}
        elif attempt.method == "paraphrase":
            entry = await self._rewrite(PARAPHRASE.format(text=before), seed, {})
        else:
            entry = await self._rewrite(INTO.format(language=config.pivot, text=before), seed, {})
            if entry and not entry.get("failed"):
                language = _LANGUAGES.get(language_of(before) or "en", "English")
                back = BACK.format(pivot=config.pivot, language=language, text=entry["text"])
                pivot = {"pivot": entry["text"], "tokens": entry["tokens"]}
                entry = await self._rewrite(back, seed + 1, pivot)
        if not config.check_answer or not entry or entry.get("failed") or rewrite_fault(before, entry["text"]):
            return entry
        return await self._solve(with_question(attempt.row, entry["text"]), seed, entry)

    async def _rewrite(self, prompt: str, seed: int, entry: dict[str, Any]) -> dict[str, Any] | None:
        assert self.teacher is not None
        reply = await self.teacher.write(prompt, seed, self.config.temperature)
        return self._joined({**entry, "text": cleaned(reply.content)}, reply)

    async def _solve(self, row: Row, seed: int, entry: dict[str, Any]) -> dict[str, Any] | None:
        assert self.teacher is not None
        strategy = build_strategy(self.config.strategy, self.config.options)
        reply = await self.teacher.solve(strategy, Problem(question_of(row)), seed)
        return self._joined({**entry, "answer": reply.answer}, reply)

    def _joined(self, entry: dict[str, Any], reply: Reply) -> dict[str, Any] | None:
        tokens = entry.get("tokens", 0) + reply.tokens
        if reply.cut:
            self.journal.spend(tokens)
            return None
        failed = reply.failed or ("cut-off" if reply.finish == "length" else "")
        return {**entry, "tokens": tokens, **({"failed": failed} if failed else {})}

    async def _refusal(self, attempt: _Attempt, entry: Mapping[str, Any], seen: set[str]) -> Refusal | None:
        if failed := entry.get("failed"):
            return Refusal(failed)
        if refusal := rewrite_fault(question_of(attempt.row), entry["text"]):
            return refusal
        if squeeze(entry["text"]).casefold() in seen:
            return Refusal("duplicate")
        if self.config.check_answer and self.teacher:
            right, found = known_answer(attempt.row) or "", entry.get("answer")
            if found is None:
                return Refusal("no-answer", {"wanted": right})
            if not await self.teacher.equality.same(found, right):
                return Refusal("wrong-answer", {"wanted": right, "found": found})
        return None


def replace_words(text: str, answer: str, lexicon: Lexicon, rate: float, seed: int) -> str:
    """The text with about `rate` of its listed words exchanged, at least one where there is one."""
    places = _places(text, frozenset(words(answer)), lexicon)
    rng, count = random.Random(seed), min(len(places), max(1, round(rate * len(places))))
    for match, options in sorted(rng.sample(places, count), key=lambda place: -place[0].start()):
        text = text[: match.start()] + _cased(rng.choice(options), match[0]) + text[match.end() :]
    return text


def load_lexicon(path: Path | None) -> Lexicon:
    """A YAML mapping `word: [synonym, …]` (or `word: one, two`); None: the list of the package. Raises SetupError."""
    where = f"--lexicon {path}"
    try:
        home = files("reason_engine.data.synthesize").joinpath("synonyms.yaml") if path is None else path
        values: Any = yaml.safe_load(home.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SetupError(f"{where}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not values:
        raise SetupError(f"{where}: must be a mapping of words to their synonyms")
    found: dict[str, tuple[str, ...]] = {}
    for word, entry in values.items():
        options = entry.split(",") if isinstance(entry, str) else entry
        if not isinstance(word, str) or not re.fullmatch(r"[^\W\d_]+", word):
            raise SetupError(f"{where}: {word!r}: must be one word of letters")
        if not isinstance(options, list) or not all(isinstance(one, str) and one.strip() for one in options):
            raise SetupError(f"{where}: {word}: must be a list of synonyms")
        if any(re.search(r"\d", one) for one in options):
            raise SetupError(f"{where}: {word}: a synonym may hold no number")
        found[word.casefold()] = tuple(one.strip() for one in options)
    return found


def _places(text: str, barred: frozenset[str], lexicon: Lexicon) -> list[tuple[re.Match[str], tuple[str, ...]]]:
    spans, found = kept_spans(text), list[tuple[re.Match[str], tuple[str, ...]]]()
    for match in _WORD.finditer(text):
        word, before = match[0].casefold(), text[: match.start()].rstrip()
        if word in barred or any(start < match.end() and match.start() < end for start, end in spans):
            continue
        if match[0][0].isupper() and before and before[-1] not in ".!?:\n\"'":
            continue
        options = lexicon.get(word, ())
        if article := _ARTICLE.search(before):
            vowel = article[1].casefold() == "an"
            options = tuple(one for one in options if (one[0].casefold() in "aeiou") == vowel)
        if options:
            found.append((match, options))
    return found


def _cased(word: str, like: str) -> str:
    upper = len(word) if len(like) > 1 and like.isupper() else int(like[0].isupper())
    return word[:upper].upper() + word[upper:]


_WORD = re.compile(r"(?<![\w'-])[^\W\d_]+(?![\w'-])")
_ARTICLE = re.compile(r"(?:^|\s)(an?)$", re.IGNORECASE)
_LANGUAGES = {
    "ar": "Arabic", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "fa": "Persian",
    "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ru": "Russian",
    "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "zh": "Chinese",
}  # fmt: skip
PARAPHRASE = """Rewrite the text below in other words. Keep its meaning, its language, every number, every name and \
every unit; leave code and formulas exactly as they are. Do not solve it and add nothing. Reply with the rewritten \
text only.

{text}"""
INTO = """Translate the text below into {language}. Keep every number in digits; leave code and formulas exactly as \
they are. Reply with the translation only.

{text}"""
BACK = """Translate the text below from {pivot} into {language}. Keep every number in digits; leave code and formulas \
exactly as they are. Reply with the translation only.

{text}"""
