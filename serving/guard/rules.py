r"""The operator's rules on what is asked and answered, as a YAML or JSON file declares them.

message: This server does not speak of that.
keys:                                # who is who: SHA-256 of an API key, never the key itself
  kiosk: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
rules:
  - {name: card numbers, kind: pattern, pattern: '\b\d{4}( ?\d{4}){3}\b', longest: 19}
  - {name: rivals, kind: list, file: rivals.txt, on: answers, keys: [kiosk]}
  - {name: medical, kind: classifier, by: model, on: requests,
     prompt: "Is this a medical question?\n\n{text}", threshold: 0.8}

What a rule names is looked for in a text of any length and in bounded time. A text is compared without its invisible
characters and in its compatibility form, so `ｂａｄ` is `bad`.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import regex
from pydantic import Field, ValidationError, field_validator, model_validator

from reason_engine.errors import SetupError
from reason_engine.serving.api.errors import nearest
from reason_engine.serving.api.schema import Strict


class _Rule(Strict):
    name: str = Field(min_length=1, max_length=64, description="what clients and metrics are told")
    on: Literal["requests", "answers", "both"] = "both"
    keys: tuple[str, ...] | None = Field(None, description="labels of the keys it holds for; none: for everyone")
    action: Literal["stop"] = "stop"

    def applies(self, where: str, caller: str | None) -> bool:
        """Whether it is about `requests` or `answers` of this caller."""
        return self.on in (where, "both") and (self.keys is None or caller in self.keys)


class PatternRule(_Rule):
    """A regular expression. `longest`: the most characters that a match spans; a stream is held back by that much.
    Without it the whole answer is held until it is checked."""

    kind: Literal["pattern"]
    pattern: str = Field(min_length=1, max_length=10_000)
    ignore_case: bool = False
    longest: int | None = Field(None, ge=1, le=10_000)

    @field_validator("pattern")
    @classmethod
    def compiles(cls, value: str) -> str:
        try:
            found = regex.compile(value)
        except (regex.error, RecursionError) as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if search(found, ""):
            raise ValueError("matches the empty text, so it would stop everything")
        return value


class ListRule(_Rule):
    """Words and phrases, whole and in any case; more of them in a file, one a line."""

    kind: Literal["list"]
    words: tuple[str, ...] = ()
    file: Path | None = None


class ClassifierRule(_Rule):
    """A model's verdict on a whole text: of the served model (`model`: the probability of the first option after
    `prompt`), of a head that the engine scores with (`head`), or of an endpoint like OpenAI's moderations."""

    kind: Literal["classifier"]
    by: Literal["model", "head", "endpoint"]
    prompt: str | None = Field(None, description="holds {text}")
    options: tuple[str, str] = ("yes", "no")
    threshold: float = Field(0.5, gt=0, allow_inf_nan=False)
    model: str | None = None
    url: str | None = Field(None, pattern=r"^https?://")
    key_env: str | None = Field(None, description="environment variable with the endpoint's key")

    @model_validator(mode="after")
    def complete(self) -> ClassifierRule:
        if self.by == "model" and "{text}" not in (self.prompt or ""):
            raise ValueError("by: model needs a prompt that holds {text}")
        if self.by == "endpoint" and self.url is None:
            raise ValueError("by: endpoint needs a url")
        if self.by != "head" and self.threshold > 1:
            raise ValueError("a threshold of a probability is at most 1")
        return self


class Rules(Strict):
    """The whole file. `message`: what a client reads in place of what was stopped."""

    message: str = ""
    keys: Mapping[str, str] = Field(default_factory=dict[str, str])
    rules: tuple[Annotated[PatternRule | ListRule | ClassifierRule, Field(discriminator="kind")], ...] = ()

    @field_validator("keys")
    @classmethod
    def digests(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for label, digest in value.items():
            if not regex.fullmatch("[0-9a-f]{64}", digest.lower()):
                raise ValueError(f"{label!r} needs the SHA-256 of the key, 64 hexadecimal digits, not the key itself")
        return {label: digest.lower() for label, digest in value.items()}


@dataclass(frozen=True, slots=True)
class CompiledRules:
    """A rule file that has been read: its rules, and the matchers of those that look for text, by name."""

    rules: Rules
    matchers: Mapping[str, Matcher]


def read_rules(path: Path) -> CompiledRules:
    """Read and check a file of rules. Raises SetupError naming the key at fault."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Of YAML 1.2 in this: `on`, `yes` and `no` are words."""

        yaml_implicit_resolvers = {  # noqa: RUF012 - the loader's own form
            first: [(tag, form) for tag, form in forms if not tag.endswith(":bool")]
            for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        data: Any = yaml.load(path.read_text("utf-8"), Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise SetupError(f"--guard {path}: {' '.join(str(error).split())}") from None
    try:
        return compile_rules(Rules.model_validate(data), path.parent)
    except ValidationError as error:
        raise SetupError(f"--guard {path}: {_describe(error)}") from None
    except SetupError as error:
        raise SetupError(f"--guard {path}: {error}") from None


def compile_rules(rules: Rules, folder: Path = Path()) -> CompiledRules:
    """The rules with their matchers. Raises SetupError naming the key at fault."""
    matchers: dict[str, Matcher] = {}
    names: set[str] = set()
    for number, rule in enumerate(rules.rules):
        where = f"rules.{number}"
        if rule.name in names:
            raise SetupError(f"{where}.name: {rule.name!r} is given twice")
        names.add(rule.name)
        for label in rule.keys or ():
            if label not in rules.keys:
                raise SetupError(f"{where}.keys: no key is labelled {label!r}; {nearest(label, rules.keys)}")
        if isinstance(rule, PatternRule):
            made = regex.compile(rule.pattern, regex.IGNORECASE if rule.ignore_case else 0)
            matchers[rule.name] = Matcher(rule.name, made, rule.longest)
        elif isinstance(rule, ListRule):
            matchers[rule.name] = _word_matcher(rule, where, folder)
    return CompiledRules(rules, matchers)


def _word_matcher(rule: ListRule, where: str, folder: Path) -> Matcher:
    given = list(rule.words)
    if rule.file:
        try:
            lines = (folder / rule.file).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(f"{where}.file: {error}") from None
        given += [line for line in lines if not line.lstrip().startswith("#")]
    known = sorted({" ".join(comparable(word).split()) for word in given} - {""})
    if not known:
        raise SetupError(f"{where}.words: no word is given")
    # Scripts without spaces have no whole words. White space within a phrase may be a line's end, so phrases are
    # patterns; plain words are one set, however many they are.
    dense = [word for word in known if _DENSE.search(word)]
    phrases = [r"\s{1,4}".join(map(regex.escape, word.split())) for word in known if " " in word]
    single = [word for word in known if " " not in word and word not in dense]
    # An empty set would match the empty text.
    whole = "|".join([r"\L<single>"] * bool(single) + phrases)
    either = "|".join([rf"(?<!\w)(?:{whole})(?!\w)"] * bool(whole) + [r"\L<dense>"] * bool(dense))
    sets: dict[str, Any] = {name: words for name, words in (("single", single), ("dense", dense)) if words}
    made = regex.compile(either, regex.IGNORECASE, **sets)
    return Matcher(rule.name, made, max(len(word) + 3 * word.count(" ") for word in known))


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = [str(part) for part in first["loc"]]
    if len(place) > 2 and place[0] == "rules":
        del place[2]  # the kind, which pydantic puts in
    key = ".".join(place) or "(file)"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        models = (PatternRule, ListRule, ClassifierRule) if place[0] == "rules" else (Rules,)
        reason = f"unknown key; {nearest(place[-1], {name for m in models for name in m.model_fields})}"
    return f"{key}: {reason}"


_DENSE = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]")


SEARCH_SECONDS = 0.5
"""A pattern that needs longer for one search counts as found: what cannot be checked is not let through."""
CONCURRENT_FROM = 10_000
"""Characters from which on a search lets the other threads go on."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """A rule that looks for text. `reach`: the most characters of a match; None where that is not known."""

    name: str
    pattern: regex.Pattern[str]
    reach: int | None

    def find(self, text: str, start: int = 0) -> tuple[int, int] | None:
        """(begin, end) of the first match at or after `start`; all the rest where the search takes too long."""
        return search(self.pattern, text, start)


async def find_violation(matchers: Sequence[Matcher], texts: Sequence[str]) -> str | None:
    """The first rule that one of these texts, of any length, breaks; the event loop goes on meanwhile."""
    return await asyncio.to_thread(first_violation, matchers, texts) if matchers and texts else None


def first_violation(matchers: Sequence[Matcher], texts: Sequence[str]) -> str | None:
    """The same for short texts, at once."""
    return next((one.name for text in map(comparable, texts) for one in matchers if one.find(text)), None)


def comparable(text: str) -> str:
    """The text as rules read it."""
    return text if text.isascii() else "".join(map(_comparable, text))


@lru_cache(maxsize=4096)
def _comparable(sign: str) -> str:
    return "" if unicodedata.category(sign) == "Cf" else unicodedata.normalize("NFKC", sign)


def strings(value: object, *, keys: bool = False) -> Iterator[str]:
    """Every text inside a JSON value; the names of its fields too with `keys`."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in cast("Mapping[Any, Any]", value).items():
            if keys:
                yield str(key)
            yield from strings(inner, keys=keys)
    elif isinstance(value, list | tuple):
        for inner in cast("Sequence[Any]", value):
            yield from strings(inner, keys=keys)


def search(pattern: regex.Pattern[str], text: str, start: int = 0) -> tuple[int, int] | None:
    """(begin, end) of the first match at or after `start`; all the rest where it takes too long."""
    try:
        found = pattern.search(text, start, timeout=SEARCH_SECONDS, concurrent=len(text) > CONCURRENT_FROM)
    except TimeoutError:
        return start, len(text)
    return found.span() if found else None
