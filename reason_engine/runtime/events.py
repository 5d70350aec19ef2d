"""What happens inside a run, as it happens: six kinds of event, appended only. The trace is their fold.

`node` is the place in the trace tree, numbered in the order of opening; node 0 is the run itself. `at` is in seconds
since the run began and is the only field that differs between two runs of the same seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from reason_engine.types import FinishReason


@dataclass(frozen=True, slots=True)
class Opened:
    """A node begins: a `span` (part of a strategy) or a `path` (one sample). `live`: this path's text is the answer
    itself and may be shown as it is made."""

    node: int
    parent: int | None
    name: str
    role: Literal["span", "path"] = "span"
    stage: str = ""
    prompt: str = ""
    prefill: str = ""
    live: bool = False
    at: float = 0.0
    kind: Literal["opened"] = "opened"


@dataclass(frozen=True, slots=True)
class Delta:
    """A path gained text."""

    node: int
    text: str
    at: float = 0.0
    kind: Literal["delta"] = "delta"


@dataclass(frozen=True, slots=True)
class Sampled:
    """A path ended. `text` is whole (prefill excluded); `tokens` were generated for it."""

    node: int
    text: str
    finish_reason: FinishReason
    tokens: int
    answer: str | None = None
    mean_logprob: float | None = None
    at: float = 0.0
    kind: Literal["sampled"] = "sampled"


@dataclass(frozen=True, slots=True)
class Scored:
    """A judgement on a node by a verifier, or by the model's own probabilities."""

    node: int
    value: float
    by: str = ""
    detail: str = ""
    at: float = 0.0
    kind: Literal["scored"] = "scored"


@dataclass(frozen=True, slots=True)
class Proposed:
    """The best answer so far changed."""

    node: int
    answer: str | None
    score: float
    at: float = 0.0
    kind: Literal["proposed"] = "proposed"


@dataclass(frozen=True, slots=True)
class Closed:
    """A node is done; `notes` is what the strategy noted on it."""

    node: int
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    at: float = 0.0
    kind: Literal["closed"] = "closed"


Event = Opened | Delta | Sampled | Scored | Proposed | Closed


def to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object; `kind` tells which one it is."""
    return asdict(event)


def from_json(value: Mapping[str, Any]) -> Event:
    """The event that `to_json` wrote. Raises ValueError on anything else."""
    kinds: Mapping[str, type[Event]] = {kind.__name__.lower(): kind for kind in get_args(Event)}
    try:
        return kinds[value["kind"]](**value)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an event: {error}") from None
