"""`reason data filter`: which rows stay, and for every row that goes the reason and its evidence.

A row passes these gates in this order; the first that refuses it is its reason:

    bad-row  too-short  too-long  language  rule:NAME  contaminated  duplicate  near-duplicate

Doubles come last, so that a row which is dropped anyway never stands in the way of another. Rows are streamed: what is
kept in memory are 8 bytes a row for exact doubles, signatures for near ones (`_minhash`) and hashes of the test sets.
A near duplicate must name the same numbers (unless `numbers` is off): two word problems of one template are two.

Beside OUT (JSON lines) stand OUT's `.dropped.jsonl` (reason, evidence and the row itself) and `.report.json` (counts).
read = kept + dropped, always. Files take their names only once they are whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from reason_engine.data.filter.gates import Gates
from reason_engine.data.filter.language import languages
from reason_engine.data.formats.readers import open_source
from reason_engine.data.synthesize.outputs import Outputs


class FilterConfig(BaseModel):
    """What is filtered. `by`: whether doubles are rows with the same prompt and answer, or with the same prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
        """Languages that can be told apart."""
        if unknown := next((code for code in value if code not in languages()), None):
            raise ValueError(f"{unknown!r} cannot be told; one of: {', '.join(languages())}")
        return value

    @model_validator(mode="after")
    def ranges(self) -> FilterConfig:
        """No range may be empty."""
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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def filter_files(
    inputs: Sequence[Path],
    out: Path,
    config: FilterConfig,
    progress: Callable[[int, int], None] = lambda read, kept: None,
) -> Filtered:
    """Filter files into one. Raises SetupError before anything is written where an input, rule or setting is wrong."""
    sources = [open_source(path, config.format) for path in inputs]
    gates = Gates(config, inputs)
    read, kept, reasons, flagged = 0, 0, Counter[str](), Counter[str]()
    accounts: list[dict[str, Any]] = []
    with Outputs(out, ("dropped",), (*inputs, *config.against)) as outputs:
        for number, source in enumerate(sources):
            before = read, kept
            for record in source:
                read += 1
                refusal, flags = gates.judge(record, number)
                if refusal is None:
                    kept += 1
                    flagged.update(flags)
                    outputs.keep({**(record.raw or {}), **({"flags": flags} if flags else {})})
                else:
                    reasons[refusal.reason] += 1
                    place = {"file": str(source.path), "line": record.line}
                    outputs.put(
                        "dropped",
                        {
                            **place,
                            "reason": refusal.reason,
                            "evidence": dict(refusal.evidence),
                            "row": record.raw,
                        },
                    )
                progress(read, kept)
            accounts.append(
                {
                    "file": str(source.path),
                    "statement": source.statement,
                    "read": read - before[0],
                    "kept": kept - before[1],
                }
            )
        found = Filtered(
            read,
            kept,
            reasons.total(),
            dict(reasons),
            dict(flagged),
            accounts,
            config.model_dump(mode="json"),
            gates.account(),
        )
        outputs.finish(found.to_json())
    return found


def describe(found: Filtered) -> str:
    """The account as text."""
    rows = [
        *(f"  {account['statement']}" for account in found.inputs),
        f"read {found.read} = kept {found.kept} + dropped {found.dropped}",
        *(f"  dropped  {reason:<24} {count}" for reason, count in sorted(found.by_reason.items())),
        *(f"  flagged  {name:<24} {count}" for name, count in sorted(found.flagged.items())),
    ]
    if found.test_sets:
        rows.append("test sets: {texts} texts, {too_short} too short to compare".format(**found.test_sets))
    return "\n".join(rows)
