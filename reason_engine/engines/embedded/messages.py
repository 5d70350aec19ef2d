"""What the engine's front and its worker say to each other. Plain frozen values; they may cross a process border."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from reason_engine.engines.reward_models import RewardFile
from reason_engine.types import Choice, FinishReason, Sampling, Scores, TokenLogprob


@dataclass(frozen=True, slots=True)
class Config:
    """What a worker is started with. `dtype`: auto, float32, bfloat16, float16. `threads`: 0 chooses by model size."""

    path: str
    dtype: str = "auto"
    device: str = "auto"
    threads: int = 0
    max_rows: int = 64
    cache_bytes: int = 0
    prefix_bytes: int = 0
    context: int = 0
    prefill_tokens: int = 512
    coalesce_seconds: float = 0.004
    compile_seconds: float = 5.0
    draft: Literal["none", "sam", "ngram"] = "none"
    rewards: tuple[RewardFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Start:
    id: str
    ids: tuple[int, ...]
    n: int
    sampling: Sampling
    adapter: str | None = None
    priority: int = 0
    search: str = ""


@dataclass(frozen=True, slots=True)
class Choose:
    id: str
    ids: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    adapter: str | None = None
    learned: int = 0
    """How many of `ids`, the first ones, are the adapter's own; the worker sets it."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Read these texts by a reward model: `places[i]` are the tokens of input i whose values are wanted, `begins[i]` is
    where its answer begins. `model` None: as vectors, by the served model; `places[i]` is then (0,), so that every
    token is read."""

    id: str
    model: str | None
    inputs: tuple[tuple[int, ...], ...]
    places: tuple[tuple[int, ...], ...]
    begins: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Abort:
    id: str
    index: int | None = None


@dataclass(frozen=True, slots=True)
class LoadAdapter:
    id: str
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class UnloadAdapter:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class TakeWeights:
    """Go on with other weights of the same shapes: tensors by their names in the checkpoint."""

    id: str
    tensors: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DraftFrom:
    """Texts that drafts may come from, in place of those before."""

    id: str
    texts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the worker."""


ToWorker = Start | Choose | Rate | Abort | LoadAdapter | UnloadAdapter | TakeWeights | DraftFrom | Stop

Delta = tuple[
    str,  # request id
    int,  # index
    str,  # text
    tuple[int, ...],  # token ids
    tuple[TokenLogprob, ...],
    FinishReason | None,
    str | int | None,  # stop reason
    int,  # prompt tokens
    int,  # cached tokens
    int,  # drafted tokens that were right
    int,  # drafted tokens that were wrong
]


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded."""

    threads: int
    dtype: str
    device: str


@dataclass(frozen=True, slots=True)
class Step:
    """What one or a few steps gave: text for samples, results for other requests, errors, and the counters."""

    deltas: list[Delta]
    results: list[tuple[str, Choice | Scores | None]]
    errors: list[tuple[str, Exception]]
    running: int
    waiting: int
    generated: int
    draft_failures: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker ends with this error."""

    error: Exception


FromWorker = Ready | Step | Failed
