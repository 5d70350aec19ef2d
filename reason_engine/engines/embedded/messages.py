"""What the engine's front and its worker send each other. Plain frozen values; they may cross a process border."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from reason_engine.engines.reward_models import RewardFile
from reason_engine.types import Choice, FinishReason, Sampling, Scores, TokenLogprob

DraftMethod = Literal["none", "sam", "ngram"]


@dataclass(frozen=True, slots=True)
class WorkerConfig:
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
    draft: DraftMethod = "none"
    rewards: tuple[RewardFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Generate:
    """Generate `n` samples of a prompt."""

    id: str
    ids: tuple[int, ...]
    n: int
    sampling: Sampling
    adapter: str | None = None
    priority: int = 0
    search: str = ""


@dataclass(frozen=True, slots=True)
class Choose:
    """Give the probabilities of a few continuations, each in tokens."""

    id: str
    ids: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class ScoreTexts:
    """Read texts by a reward model: `places[i]` are the tokens of input i whose values are wanted, `begins[i]` is
    where its answer begins. `model` None: as vectors, by the served model; `places[i]` is then (0,), so that every
    token is read."""

    id: str
    model: str | None
    inputs: tuple[tuple[int, ...], ...]
    places: tuple[tuple[int, ...], ...]
    begins: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Abort:
    """End a request, or one sample of it."""

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
class ReplaceWeights:
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


Query = Choose | ScoreTexts | LoadAdapter | UnloadAdapter | ReplaceWeights | DraftFrom
"""What is answered by one result or one error."""
ToWorker = Generate | Query | Abort | Stop


class Delta(NamedTuple):
    """What one sample of a request gained: the fields of a Chunk, with the request's id. Prompt tokens stand on the
    request's first delta only."""

    request: str
    index: int
    text: str
    ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    finish: FinishReason | None
    stop_reason: str | int | None
    prompt_tokens: int
    cached_tokens: int
    draft_accepted: int
    draft_rejected: int


def join(deltas: Sequence[Delta]) -> Delta:
    """Successive deltas of one sample as one."""
    if len(deltas) == 1:
        return deltas[0]
    _, _, texts, ids, logprobs, _, _, *counts = zip(*deltas, strict=True)
    last = deltas[-1]
    return Delta(
        last.request,
        last.index,
        "".join(texts),
        tuple(i for some in ids for i in some),
        tuple(one for some in logprobs for one in some),
        last.finish,
        last.stop_reason,
        *map(sum, counts),
    )


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded."""

    threads: int
    dtype: str
    device: str


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What one or a few steps gave: text for samples, results for other requests, errors, and the counters."""

    deltas: Sequence[Delta]
    results: Sequence[tuple[str, Choice | Scores | None]]
    errors: Sequence[tuple[str, Exception]]
    running: int
    waiting: int
    generated: int
    draft_failures: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        """Deltas cross as plain tuples, which pickle in a quarter of the time of named ones."""
        return _unpickled, (
            [tuple(delta) for delta in self.deltas],
            *(self.results, self.errors, self.running, self.waiting, self.generated, self.draft_failures),
        )


def _unpickled(deltas: list[Any], *others: Any) -> StepOutput:
    return StepOutput([Delta._make(delta) for delta in deltas], *others)


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker ends with this error."""

    error: Exception


FromWorker = Ready | StepOutput | Failed
