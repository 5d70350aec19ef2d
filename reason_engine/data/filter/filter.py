"""`reason data filter`: which rows stay, and for every row that goes the reason and its evidence.

A row passes these gates in this order; the first that refuses it is its reason:

    bad-row  too-short  too-long  language  rule:NAME  contaminated  duplicate  near-duplicate

Doubles come last, so that a row which is dropped anyway never stands in the way of another. Rows are streamed: what is
kept in memory are 8 bytes a row for exact doubles, signatures for near ones (`texts.NearIndex`) and hashes of the test
sets. A near duplicate must name the same numbers (unless `numbers` is off): two word problems of one template are two.

Beside OUT (JSON lines) stand OUT's `.dropped.jsonl` (reason, evidence and the row itself) and `.report.json` (counts).
read = kept + dropped, always. Files take their names only once they are whole.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from reason_engine.data import Options
from reason_engine.data.filter.check import NO_TOKENIZER, token_counter, whole_text
from reason_engine.data.filter.exclusions import Rules, TestSets, load_rules
from reason_engine.data.formats.readers import RowOrFault, open_source
from reason_engine.data.formats.rows import Row, answer_text, prompt_text
from reason_engine.data.outputs import Outputs, Refusal, bad_row
from reason_engine.data.texts import LANGUAGES, NearIndex, digest, language_of, numbers, squeeze, words


class FilterConfig(Options):
    """What is filtered. `by`: whether doubles are rows with the same prompt and answer, or with the same prompt."""

    format: str | None = None
    min_chars: int | None = Field(None, ge=1)
    max_chars: int | None = Field(None, ge=1)
    min_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    tokenizer: str | None = None
    languages: tuple[str, ...] = ()
    unknown_language: Literal["keep", "drop"] = "keep"
    rules: str | None = None
    against: tuple[Path, ...] = ()
    ngram: int = Field(13, ge=3, le=100)
    exact: bool = True
    near: float | None = Field(0.8, ge=0.3, le=1)
    numbers: bool = True
    by: Literal["row", "prompt"] = "row"

    @field_validator("languages")
    @classmethod
    def known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuses languages that cannot be told apart."""
        if unknown := next((code for code in value if code not in LANGUAGES), None):
            raise ValueError(f"{unknown!r} cannot be told; one of: {', '.join(LANGUAGES)}")
        return value

    @model_validator(mode="after")
    def ranges(self) -> FilterConfig:
        """Refuses an empty range."""
        for name in ("chars", "tokens"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{name} is over max_{name}")
        return self


@dataclass(frozen=True, slots=True)
class Filtered:
    """The account of a run."""

    read: int
    kept: int
    dropped: int
    by_reason: Mapping[str, int]
    flagged: Mapping[str, int]
    inputs: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]
    test_sets: Mapping[str, int] = field(default_factory=dict[str, int])


def filter_files(
    inputs: Sequence[Path],
    out: Path,
    config: FilterConfig,
    progress: Callable[[int, int], None] = lambda read, kept: None,
) -> Filtered:
    """Filter files into one. Raises SetupError before anything is written where an input, rule or setting is wrong."""
    files = [open_source(path, config.format) for path in inputs]
    gates = _Gates(config, inputs)
    read, kept, reasons, flagged, accounts = 0, 0, Counter[str](), Counter[str](), list[dict[str, Any]]()
    with Outputs(out, (*inputs, *config.against)) as outputs:
        for number, file in enumerate(files):
            before = read, kept
            for found in file:
                read += 1
                refusal, flags = gates.judge(found, number)
                if refusal is None:
                    kept += 1
                    flagged.update(flags)
                    outputs.keep({**(found.raw or {}), **({"flags": flags} if flags else {})})
                else:
                    reasons[refusal.reason] += 1
                    outputs.drop(refusal, {"file": str(file.path), "line": found.line}, {"row": found.raw})
                progress(read, kept)
            counts = {"read": read - before[0], "kept": kept - before[1]}
            accounts.append({"file": str(file.path), "statement": file.statement, **counts})
        filtered = Filtered(
            read, kept, reasons.total(), dict(reasons), dict(flagged), accounts, config.model_dump(mode="json"),
            gates.test_sets(),
        )  # fmt: skip
        outputs.finish(asdict(filtered))
    return filtered


def describe(filtered: Filtered) -> str:
    """The account as text."""
    rows = [
        *(f"  {account['statement']}" for account in filtered.inputs),
        f"read {filtered.read} = kept {filtered.kept} + dropped {filtered.dropped}",
        *(f"  dropped  {reason:<24} {count}" for reason, count in sorted(filtered.by_reason.items())),
        *(f"  flagged  {name:<24} {count}" for name, count in sorted(filtered.flagged.items())),
    ]
    if filtered.test_sets:
        rows.append("test sets: {texts} texts, {too_short} too short to compare".format(**filtered.test_sets))
    return "\n".join(rows)


class _Gates:
    """Every check with its memory of rows kept before. A row's place is its file and line in one number."""

    def __init__(self, config: FilterConfig, inputs: Sequence[Path]) -> None:
        self._config, self._inputs = config, inputs
        limited = config.min_tokens is not None or config.max_tokens is not None
        self._count = token_counter(config.tokenizer if limited else NO_TOKENIZER)
        self._rules = load_rules(config.rules) if config.rules else Rules(())
        self._tests = TestSets(config.against, config.ngram) if config.against else None
        self._seen: dict[int, int] = {}
        self._near = NearIndex(config.near) if config.near is not None else None
        self._places, self._numbers = array("q"), array("Q")  # of the texts in the index

    def judge(self, found: RowOrFault, number: int) -> tuple[Refusal | None, list[str]]:
        """The first refusal, or None and the flags that the row gets. `number`: of its file among the inputs."""
        if found.row is None:
            return bad_row(found.fault), []
        row, flags = found.row, list[str]()
        refusal = self._length(row) or self._language(row) or self._breach(row, flags) or self._test(row)
        return refusal or self._double(row, number << _LINE_BITS | found.line), flags

    def test_sets(self) -> dict[str, int]:
        """How many texts of the test sets are compared, and how many are too short for that."""
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
        if self._near is not None:
            signature = self._near.signature(words(text))
            marks = digest(" ".join(sorted(numbers(text)))) if self._config.numbers else 0
            for near, share in self._near.near(signature):
                if self._numbers[near] == marks:
                    evidence = {"of": self._name(self._places[near]), "similarity": round(share, 3)}
                    return Refusal("near-duplicate", evidence)
            self._near.add(signature)
            self._numbers.append(marks)
            self._places.append(place)
        self._seen[mark] = place
        return None

    def _name(self, place: int) -> str:
        return f"{self._inputs[place >> _LINE_BITS]}:{place & (1 << _LINE_BITS) - 1}"


_LINE_BITS = 40
