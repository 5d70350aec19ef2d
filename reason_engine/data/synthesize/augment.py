"""`reason data augment`: the same problems in other words; the answers stay as they are.

    synonyms           listed words exchanged, without a model: EDA, Wei and Zou 2019 (arXiv:1901.11196), section 2
    paraphrase         a model rewrites the question
    back-translation   into a pivot language and back: Sennrich et al. 2016 (arXiv:1511.06709), on inputs

What comes back counts only if it is sound: the same numbers equally often, code and formulas as they were, the same
language, between half and twice as long, not the same text again; and with `check_answer` only if the model, asked the
new question by a strategy, still reaches the known answer.

Every attempt is a line of the journal beside OUT, so a run that was broken off goes on; OUT holds the new rows (after
the old ones with `keep_originals`), each with its `provenance`, and `.dropped.jsonl` every other attempt with reason
and evidence.

Synonym replacement in a question: Wei and Zou 2019, "EDA" (arXiv:1901.11196), section 2, the operation SR.

A share of the words that have a synonym is exchanged, drawn by seed. Left as they are: numbers, code, formulas and
addresses; names (a capital inside a sentence); words that the answer uses, so that both still speak of one thing; and a
word after "a" or "an" whose synonym would need the other. Departures: the lexicon is the user's or a short list of
words that are safe in most senses, not WordNet; stop words need no list, since only listed words change.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.data.formats.readers import Record, Source, open_source
from reason_engine.data.formats.rows import Row, Text, answer_text, question_of, to_json, with_question
from reason_engine.data.synthesize.journal import Journal, each, file_hash
from reason_engine.data.synthesize.outputs import Account, Outputs, Refusal, Tally, beside
from reason_engine.data.synthesize.rewrites import cleaned, faults, known_answer, language_name
from reason_engine.data.synthesize.teacher import Said, Teacher, build_strategy, seed_of
from reason_engine.data.texts import kept_spans, squeeze, words
from reason_engine.errors import SetupError
from reason_engine.types import Problem

Method = Literal["synonyms", "paraphrase", "back-translation"]


class AugmentConfig(BaseModel):
    """How rows are multiplied. `copies`: attempts a row and method. `rate`: share of listed words exchanged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
class _Job:
    """One attempt at one row."""

    record: Record
    row: Row
    method: Method
    copy: int

    @property
    def key(self) -> str:
        return f"{self.record.line}/{self.method}/{self.copy}"


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
    source = open_source(path, config.format)
    build_strategy(config.strategy, config.options)
    lexicon = load_lexicon(config.lexicon) if "synonyms" in config.methods else {}
    if teacher is None and config.needs_model:
        raise SetupError(f"{', '.join(config.methods)}: needs a model")
    model = teacher.engine.info.name if teacher else "none"
    dump = config.model_dump(mode="json")
    head = {"run": "augment", "input": file_hash(path), "model": model, "config": dump}
    with (
        Outputs(out, ("dropped",), (path,)) as outputs,
        Journal(beside(out, "journal"), head, fresh=fresh) as journal,
    ):
        desk = teacher.within(tokens, journal.spent) if teacher else None
        worker = _Worker(config, desk, lexicon, journal, progress)
        await each(_jobs(source, config, journal), concurrency, worker.work)
        tally, rows, bad = await _collect(source, config, journal, outputs, teacher, model)
        dropped = tally.reasons.total()
        account = Account(
            "augment", rows, bad, tally.kept + dropped, tally.kept, dropped, tally.not_attempted,
            dict(tally.reasons), journal.spent, source.statement, model, dump,
        )  # fmt: skip
        outputs.finish(account.to_json())
    return account


class _Worker:
    """Makes attempts that the journal does not hold yet."""

    def __init__(
        self,
        config: AugmentConfig,
        teacher: Teacher | None,
        lexicon: Lexicon,
        journal: Journal,
        progress: Callable[[int], None],
    ) -> None:
        self._config, self._teacher, self._lexicon = config, teacher, lexicon
        self._journal, self._progress, self._done = journal, progress, 0

    async def work(self, job: _Job) -> bool:
        """False where the budget is spent."""
        entry = await self._attempt(job)
        if entry is None:
            return False
        self._journal.add(job.key, entry)
        self._done += 1
        self._progress(self._done)
        return True

    async def _attempt(self, job: _Job) -> dict[str, Any] | None:
        config, before = self._config, question_of(job.row)
        seed = seed_of(config.seed, job.key)
        if config.check_answer and known_answer(job.row) is None:
            return {"failed": "no-known-answer"}
        entry: dict[str, Any] | None
        if job.method == "synonyms":
            answer = "" if isinstance(job.row, Text) else answer_text(job.row)
            entry = {"text": replace_words(before, answer, self._lexicon, config.rate, seed)}
        elif job.method == "paraphrase":
            entry = await self._ask(PARAPHRASE.format(text=before), seed, {})
        else:
            entry = await self._ask(INTO.format(language=config.pivot, text=before), seed, {})
            if entry and not entry.get("failed"):
                home = language_name(before)
                back = BACK.format(pivot=config.pivot, language=home, text=entry["text"])
                said = {"pivot": entry["text"], "tokens": entry["tokens"]}
                entry = await self._ask(back, seed + 1, said)
        if entry and not entry.get("failed") and config.check_answer and not faults(before, entry["text"]):
            return await self._solve(with_question(job.row, entry["text"]), seed, entry)
        return entry

    async def _ask(self, prompt: str, seed: int, entry: dict[str, Any]) -> dict[str, Any] | None:
        assert self._teacher is not None
        said = await self._teacher.say(prompt, seed, self._config.temperature)
        return self._said(said, {**entry, "text": cleaned(said.content)})

    async def _solve(self, row: Row, seed: int, entry: dict[str, Any]) -> dict[str, Any] | None:
        assert self._teacher is not None
        strategy = build_strategy(self._config.strategy, self._config.options)
        said = await self._teacher.solve(strategy, Problem(question_of(row)), seed)
        return self._said(said, {**entry, "answer": said.answer})

    def _said(self, said: Said, entry: dict[str, Any]) -> dict[str, Any] | None:
        tokens = entry.get("tokens", 0) + said.tokens
        if said.cut:
            self._journal.spend(tokens)
            return None
        failed = said.failed or ("cut-off" if said.finish == "length" else "")
        return {**entry, "tokens": tokens, **({"failed": failed} if failed else {})}


async def _collect(
    source: Source,
    config: AugmentConfig,
    journal: Journal,
    outputs: Outputs,
    teacher: Teacher | None,
    model: str,
) -> tuple[Tally, int, int]:
    """Write what the journal holds, in the order of the rows."""
    tally, rows, bad = Tally(outputs), 0, 0
    for record in source:
        rows += 1
        place = {"file": str(source.path), "line": record.line}
        if record.row is None:
            bad += 1
            assert record.fault is not None
            why = Refusal("bad-row", {"field": record.fault.field, "message": record.fault.message})
            tally.note(why, place, {"row": record.raw})
            continue
        if config.keep_originals:
            outputs.keep(record.raw or {})
        seen: set[str] = set()
        for job in _jobs_of(record, record.row, config):
            entry = journal.entry(job.key)
            if entry is None:
                tally.not_attempted += 1
                continue
            refusal = await _verdict(job, entry, config, seen, teacher)
            told = {"method": job.method, "copy": job.copy, "seed": seed_of(config.seed, job.key)}
            if refusal:
                tally.drop(refusal, place, {**told, "text": entry.get("text", ""), "row": record.raw})
                continue
            seen.add(squeeze(entry["text"]).casefold())
            source_of = {**place, **told, "model": model if job.method != "synonyms" else None}
            tally.keep({**to_json(with_question(job.row, entry["text"])), "provenance": source_of})
    return tally, rows, bad


async def _verdict(
    job: _Job, entry: Mapping[str, Any], config: AugmentConfig, seen: set[str], teacher: Teacher | None
) -> Refusal | None:
    if failed := entry.get("failed"):
        return Refusal(failed)
    if refusal := faults(question_of(job.row), entry["text"]):
        return refusal
    if squeeze(entry["text"]).casefold() in seen:
        return Refusal("duplicate")
    if config.check_answer and teacher:
        wanted, found = known_answer(job.row) or "", entry.get("answer")
        if found is None:
            return Refusal("no-answer", {"wanted": wanted})
        if not await teacher.equality.same(found, wanted):
            return Refusal("wrong-answer", {"wanted": wanted, "found": found})
    return None


def _jobs(source: Source, config: AugmentConfig, journal: Journal) -> Iterator[_Job]:
    for record in source:
        if record.row is not None:
            yield from (job for job in _jobs_of(record, record.row, config) if job.key not in journal)


def _jobs_of(record: Record, row: Row, config: AugmentConfig) -> Iterator[_Job]:
    for method in dict.fromkeys(config.methods):
        for copy in range(config.copies):
            yield _Job(record, row, method, copy)


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


Lexicon = Mapping[str, tuple[str, ...]]


def replace_words(text: str, answer: str, lexicon: Lexicon, rate: float, seed: int) -> str:
    """The text with about `rate` of its listed words exchanged, at least one where there is one."""
    places = _places(text, frozenset(words(answer)), lexicon)
    if not places:
        return text
    rng = random.Random(seed)
    count = min(len(places), max(1, round(rate * len(places))))
    for match, options in sorted(rng.sample(places, count), key=lambda place: -place[0].start()):
        text = text[: match.start()] + _cased(rng.choice(options), match[0]) + text[match.end() :]
    return text


def load_lexicon(path: Path | None) -> Lexicon:
    """A YAML mapping `word: [synonym, …]` (or `word: one, two`); None: the list of the package. Raises SetupError."""
    import yaml

    where = f"--lexicon {path}"
    try:
        home = files("reason_engine.data").joinpath("synonyms.yaml") if path is None else path
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


def _places(
    text: str, barred: frozenset[str], lexicon: Lexicon
) -> list[tuple[re.Match[str], tuple[str, ...]]]:
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
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[0].upper() + word[1:] if like[0].isupper() else word


_WORD = re.compile(r"(?<![\w'-])[^\W\d_]+(?![\w'-])")
_ARTICLE = re.compile(r"(?:^|\s)(an?)$", re.IGNORECASE)
