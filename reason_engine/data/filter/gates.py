"""The gates of `filter`: each takes a row and refuses it with evidence, or lets it pass."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reason_engine.data.filter.check import NONE, token_counter, whole_text
from reason_engine.data.filter.contamination import TestSets
from reason_engine.data.filter.language import language_of
from reason_engine.data.filter.rules import Rules, load_rules
from reason_engine.data.formats.readers import Record
from reason_engine.data.formats.rows import Row, answer_text, prompt_text
from reason_engine.data.texts import digest, numbers, squeeze, words

if TYPE_CHECKING:
    from reason_engine.data.filter.filter import FilterConfig


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a row is dropped."""

    reason: str
    evidence: Mapping[str, Any]


class Gates:
    """Every check with its memory of rows kept before. A row's place is its file and line in one number."""

    def __init__(self, config: FilterConfig, inputs: Sequence[Path]) -> None:
        self._inputs = inputs
        self._config = config
        wanted = config.min_tokens is not None or config.max_tokens is not None
        self._count = token_counter(config.tokenizer if wanted else NONE)
        self._rules = load_rules(config.rules) if config.rules else Rules(())
        self._tests = TestSets(config.against, config.ngram) if config.against else None
        self._seen: dict[int, int] = {}
        self._doubles = _Near(config.near, config.numbers) if config.near is not None else None

    def judge(self, record: Record, number: int) -> tuple[Refusal | None, list[str]]:
        """The first refusal, or None and the flags that the row gets. `number`: of its file among the inputs."""
        if record.row is None:
            fault = record.fault
            assert fault is not None
            return Refusal("bad-row", {"field": fault.field, "message": fault.message}), []
        row, flags = record.row, list[str]()
        refusal = self._length(row) or self._language(row) or self._breach(row, flags) or self._test(row)
        return refusal or self._double(row, number << _LINES | record.line), flags

    def account(self) -> dict[str, int]:
        return {"texts": self._tests.texts, "too_short": self._tests.too_short} if self._tests else {}

    def _length(self, row: Row) -> Refusal | None:
        config, text = self._config, whole_text(row)
        limits = [("characters", len(text), config.min_chars, config.max_chars)]
        if self._count is not None:
            limits.append(("tokens", self._count(text), config.min_tokens, config.max_tokens))
        for unit, length, low, high in limits:
            if low is not None and length < low:
                return Refusal("too-short", {unit: length, "least": low})
            if high is not None and length > high:
                return Refusal("too-long", {unit: length, "most": high})
        return None

    def _language(self, row: Row) -> Refusal | None:
        if not self._config.languages:
            return None
        found = language_of(whole_text(row))
        fits = found in self._config.languages or (found is None and self._config.unknown_language == "keep")
        return None if fits else Refusal("language", {"found": found, "wanted": list(self._config.languages)})

    def _breach(self, row: Row, flags: list[str]) -> Refusal | None:
        for hit in self._rules.hits(prompt_text(row), answer_text(row)):
            if hit.rule.action == "drop":
                return Refusal(f"rule:{hit.rule.name}", {"in": hit.part, "found": hit.found})
            flags.append(hit.rule.name)
        return None

    def _test(self, row: Row) -> Refusal | None:
        overlap = self._tests.overlap(prompt_text(row), answer_text(row)) if self._tests else None
        if overlap is None:
            return None
        return Refusal("contaminated", {"file": overlap.file, "line": overlap.line, "shared": overlap.shared})

    def _double(self, row: Row, place: int) -> Refusal | None:
        text = (prompt_text(row) if self._config.by == "prompt" else "") or whole_text(row)
        mark = digest(squeeze(text))
        if self._config.exact and mark in self._seen:
            return Refusal("duplicate", {"of": self._name(self._seen[mark])})
        near = self._doubles.of(text) if self._doubles else None
        if near is not None:
            return Refusal("near-duplicate", {"of": self._name(near[0]), "similarity": round(near[1], 3)})
        self._seen[mark] = place
        if self._doubles:
            self._doubles.keep(place)
        return None

    def _name(self, place: int) -> str:
        return f"{self._inputs[place >> _LINES]}:{place & (1 << _LINES) - 1}"


class _Near:
    """Near duplicates among the texts kept so far."""

    def __init__(self, threshold: float, same_numbers: bool) -> None:
        from reason_engine.data.filter.near_duplicates import MinHash, NearIndex

        self._hash, self._index, self._same = MinHash(), NearIndex(threshold), same_numbers
        self._places, self._numbers = array("q"), array("Q")
        self._last: Any = None

    def of(self, text: str) -> tuple[int, float] | None:
        """The place of the nearest kept text, with the estimated similarity."""
        found = words(text)
        named = digest(" ".join(sorted(numbers(text)))) if self._same else 0
        self._last = self._hash.signature(found), named
        pairs = self._index.near(self._last[0])
        return next(
            ((self._places[one], share) for one, share in pairs if self._numbers[one] == named),
            None,
        )

    def keep(self, place: int) -> None:
        """Keep the text that was asked for last."""
        self._index.add(self._last[0])
        self._numbers.append(self._last[1])
        self._places.append(place)


_LINES = 40
