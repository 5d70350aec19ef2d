r"""Declared rules on ethics and safety: what a data set must not hold, or must be marked for.

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
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from reason_engine.data.texts import excerpt
from reason_engine.errors import SetupError

STARTER = "starter"


class Rule(BaseModel):
    """One rule as it is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
        """Names the expression that is none."""
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
        """A rule without anything to look for is a mistake."""
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
    import yaml

    folder = None if source == STARTER else Path(source).parent
    try:
        if folder is None:
            text = files("reason_engine.data").joinpath("starter_rules.yaml").read_text("utf-8")
        else:
            text = Path(source).read_text("utf-8")
        values = yaml.safe_load(text)
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
    names = [rule.name for rule in rules]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise SetupError(f"--rules {source}: the name {double!r} is given twice")
    return Rules(rules, folder)


def _rule(entry: Any, where: str) -> Rule:
    if not isinstance(entry, Mapping):
        raise SetupError(f"{where}: must be a mapping with name, action and patterns or words")
    try:
        return Rule.model_validate(dict(entry))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        raise SetupError(
            f"{where}: {key}{': ' if key else ''}{message.removeprefix('Value error, ')}"
        ) from None


def _compiled(rule: Rule, folder: Path | None) -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
    listed = [*rule.words, *(_file(rule, folder) if rule.words_file else ())]
    wanted = [re.compile(pattern, re.IGNORECASE) for pattern in rule.patterns]
    if listed:
        # longest first, so that the evidence is the whole phrase
        either = "|".join(
            r"\s+".join(map(re.escape, one.split())) for one in sorted(set(listed), key=len, reverse=True)
        )
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
