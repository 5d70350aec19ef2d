r"""What rows are excluded by: declared rules on ethics and safety, and texts of test sets.

Rules say what a data set must not hold, or must be marked for:

    rules:
      - name: private-keys
        why: credentials must never be learned
        patterns: ['-----BEGIN [A-Z ]*PRIVATE KEY-----']      # regular expressions, case ignored
        action: drop                                          # or flag: the row stays, with `flags: [name]`
      - name: slurs
        words: [first, second one]                            # whole words and phrases
        words_file: slurs.txt                                 # one a line, beside the rules
        where: answer                                         # any (as left out), prompt or answer
        unless: ['quoted for research']                       # a text with one of these is spared
        action: flag

`starter` names the rules that ship with the package: a beginning, not a guarantee. They are data; read and change them.

Contamination: rows that share a run of n words with a test set. Brown et al. 2020 (arXiv:2005.14165), appendix C: 13
words, lower case, no punctuation; one shared run is enough. A test text shorter than n words but not than `SHORT` is
compared whole, as a run of its own length; a shorter one only with a row's whole prompt. Departure: runs that are
frequent in the training data are not excused, since a dropped row costs little and is listed with its evidence. A test
file may have any columns: every text in every row of it counts. It is kept as 8-byte hashes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from reason_engine.data import Options
from reason_engine.data.formats.parse import InvalidField
from reason_engine.data.formats.readers import container_of, read_mappings
from reason_engine.data.texts import digest, excerpt, grams, words
from reason_engine.errors import SetupError

STARTER = "starter"
SHORT, SHORTEST = 8, 3


class Rule(Options):
    """One rule as it is declared."""

    name: str = Field(min_length=1, max_length=80)
    why: str = ""
    patterns: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    words_file: str | None = None
    unless: tuple[str, ...] = ()
    where: Literal["any", "prompt", "answer"] = "any"
    action: Literal["drop", "flag"]

    @field_validator("patterns", "unless")
    @classmethod
    def compile(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuses what is no regular expression, or matches everything."""
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
            if re.search(pattern, ""):
                raise ValueError(f"{pattern!r} matches every text")
        return value

    @model_validator(mode="after")
    def says_something(self) -> Rule:
        """Refuses a rule without anything to look for."""
        if not (self.patterns or self.words or self.words_file):
            raise ValueError("needs patterns, words or words_file")
        if any(not word.strip() for word in self.words):
            raise ValueError("words: one of them is empty")
        return self


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule that a row breaks, with the text that shows it."""

    rule: Rule
    part: str
    found: str


class Rules:
    """Rules ready to be applied."""

    def __init__(self, rules: Sequence[Rule], folder: Path | None = None) -> None:
        self.rules = tuple(rules)
        self._ready = [(rule, *_compiled(rule, folder)) for rule in rules]

    def hits(self, prompt: str, answer: str) -> Iterator[Hit]:
        """The first breach of each rule, in the order in which they are declared."""
        for rule, wanted, unless in self._ready:
            for part, text in (("prompt", prompt), ("answer", answer)):
                if rule.where not in ("any", part):
                    continue
                match = next((m for pattern in wanted if (m := pattern.search(text))), None)
                if match and not any(pattern.search(text) for pattern in unless):
                    yield Hit(rule, part, excerpt(text, *match.span()))
                    break


def load_rules(source: str) -> Rules:
    """The rules of a YAML file, or those that ship as `starter`. Raises SetupError naming file and key."""
    folder = None if source == STARTER else Path(source).parent
    try:
        shipped = files("reason_engine.data.filter").joinpath("starter_rules.yaml")
        values = yaml.safe_load((shipped if folder is None else Path(source)).read_text("utf-8"))
    except OSError as error:
        raise SetupError(f"--rules {source}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SetupError(f"--rules {source}: not YAML: {' '.join(str(error).split())}") from None
    entries = values.get("rules") if isinstance(values, dict) else None
    if not isinstance(entries, list) or not entries:
        raise SetupError(f"--rules {source}: rules: must be a list with at least one rule")
    if unknown := next((key for key in values if key != "rules"), None):
        raise SetupError(f"--rules {source}: {unknown}: unknown key")
    rules = [_rule(entry, f"--rules {source}: rules.{place}") for place, entry in enumerate(entries)]
    if double := next((name for name, count in Counter(rule.name for rule in rules).items() if count > 1), None):
        raise SetupError(f"--rules {source}: the name {double!r} is given twice")
    return Rules(rules, folder)


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a row shares with a test set, and where that stands."""

    file: str
    line: int
    shared: str


class TestSets:
    """Runs of words of the files that training must not see."""

    __test__ = False  # for test runners: this is no test

    def __init__(self, paths: Sequence[Path], n: int = 13) -> None:
        """Raises SetupError where a file cannot be read or holds no text."""
        self._n, self._files = n, [str(path) for path in paths]
        self._runs: dict[int, dict[int, tuple[int, int]]] = {n: {}}
        self._whole: dict[int, tuple[int, int]] = {}
        self.texts = self.too_short = 0
        for number, path in enumerate(paths):
            before = self.texts
            for line, raw in read_mappings(path, container_of(path)):
                if isinstance(raw, InvalidField):
                    raise SetupError(f"--against {path}:{line}: {raw}")
                for text in _texts(raw):
                    self._add(words(text), (number, line))
            if self.texts == before:
                raise SetupError(f"--against {path}: holds no text that can be compared")

    def overlap(self, prompt: str, answer: str) -> Overlap | None:
        """The first run that prompt or answer share with a test set."""
        asked, answered = words(prompt), words(answer)
        if (place := self._whole.get(digest(" ".join(asked)))) is not None:
            return Overlap(self._files[place[0]], place[1], " ".join(asked))
        for length, runs in self._runs.items():
            for gram in (*grams(asked, length), *grams(answered, length)):
                if (place := runs.get(digest(gram))) is not None:
                    return Overlap(self._files[place[0]], place[1], gram)
        return None

    def _add(self, found: Sequence[str], place: tuple[int, int]) -> None:
        if len(found) < SHORTEST:
            self.too_short += bool(found)
            return
        self.texts += 1
        if len(found) < min(SHORT, self._n):
            self._whole.setdefault(digest(" ".join(found)), place)
            return
        length = min(self._n, len(found))
        runs = self._runs.setdefault(length, {})
        for gram in grams(found, length):
            runs.setdefault(digest(gram), place)


def _rule(entry: Any, where: str) -> Rule:
    if not isinstance(entry, Mapping):
        raise SetupError(f"{where}: must be a mapping with name, action and patterns or words")
    try:
        return Rule.model_validate(dict(entry))
    except ValidationError as error:
        first = error.errors()[0]
        key, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        message = "unknown key" if first["type"] == "extra_forbidden" else message
        raise SetupError(": ".join(filter(None, (where, key, message)))) from None


def _compiled(rule: Rule, folder: Path | None) -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
    listed = [*rule.words, *(_file(rule, folder) if rule.words_file else ())]
    wanted = [re.compile(pattern, re.IGNORECASE) for pattern in rule.patterns]
    if listed:
        longest_first = sorted(set(listed), key=len, reverse=True)  # so that the evidence is the whole phrase
        either = "|".join(r"\s+".join(map(re.escape, one.split())) for one in longest_first)
        wanted.append(re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE))
    return wanted, [re.compile(pattern, re.IGNORECASE) for pattern in rule.unless]


def _file(rule: Rule, folder: Path | None) -> list[str]:
    path = (folder or Path()) / str(rule.words_file)
    try:
        rows = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"rule {rule.name!r}: words_file {path}: {error}") from None
    found = [row.strip() for row in rows if row.strip() and not row.startswith("#")]
    if not found:
        raise SetupError(f"rule {rule.name!r}: words_file {path}: holds no words")
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _texts(entry)
