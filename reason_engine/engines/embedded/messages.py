"""What the engine's front and its worker send each other: plain frozen values that may cross a process border.

A frame of a pipe is 4 bytes of length and a pickle. `OutputBuffer` joins what samples gain over a few milliseconds, so
that a fast model does not swamp its reader.
"""

from __future__ import annotations

import pickle
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple

from reason_engine.engines.rewards.folders import RewardFile
from reason_engine.types import Choice, FinishReason, Sampling, Scores, TokenLogprob

DraftMethod = Literal["none", "sam", "ngram"]
Weights = Literal["auto", "int8", "full"]


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker is started with. `dtype`: auto, float32, bfloat16, float16. `threads`: 0 chooses by timed
    passes. `weights`: full, int8, auto."""

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
    weights: Weights = "full"
    shown: frozenset[str] = frozenset()
    """Control tokens whose text is part of what is generated."""


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
Inbox = SimpleQueue[ToWorker | Callable[[], None]]
"""Messages of a worker, and functions that its loop is to call."""


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
    last, ids, logprobs = deltas[-1], tuple(chain(*ids)), tuple(chain(*logprobs))
    return Delta(last.request, last.index, "".join(texts), ids, logprobs, *last[5:7], *map(sum, counts))


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded. `dtype`: of keys, values and what is not quantised. `precision`: what the weights are
    multiplied in. `notes`: what was not done as asked, or as usual."""

    threads: int
    dtype: str
    device: str
    precision: str = ""
    notes: tuple[str, ...] = ()


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
        counts = (self.running, self.waiting, self.generated, self.draft_failures)
        return _unpickled, ([tuple(delta) for delta in self.deltas], self.results, self.errors, *counts)


def _unpickled(deltas: list[Any], *others: Any) -> StepOutput:
    return StepOutput([Delta._make(delta) for delta in deltas], *others)


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker ends with this error."""

    error: Exception


FromWorker = Ready | StepOutput | Failed


def frame(message: object) -> bytes:
    """A message as it crosses the pipe."""
    data = pickle.dumps(message, protocol=5)
    return struct.pack("<I", len(data)) + data


class OutputBuffer:
    """The worker's end of all requests: deltas, results and errors until they are sent. Counts every token."""

    def __init__(self, send: Callable[[StepOutput], None], seconds: float) -> None:
        self._send, self._seconds = send, seconds
        self._deltas: dict[tuple[str, int], list[Delta]] = {}
        self._results: list[tuple[str, Choice | Scores | None]] = []
        self._errors: list[tuple[str, Exception]] = []
        self._due = 0.0
        self._urgent = False
        self.generated = 0

    def add(self, delta: Delta) -> None:
        """A sample gained tokens, or ended; its first and its last delta do not wait."""
        self.generated += len(delta.ids)
        self._deltas.setdefault((delta.request, delta.index), []).append(delta)
        if delta.finish is not None or delta.prompt_tokens:
            self._urgent = True

    def add_result(self, request_id: str, value: Choice | Scores | None = None) -> None:
        self._results.append((request_id, value))
        self._urgent = True

    def add_error(self, request_id: str, error: Exception) -> None:
        self._errors.append((request_id, error))
        self._urgent = True

    def flush(self, running: int, waiting: int, *, now: bool = False, draft_failures: int = 0) -> None:
        """Send what there is, if it is time."""
        clock = time.monotonic()
        waits = not (now or self._urgent or clock >= self._due)
        if waits or not (self._deltas or self._results or self._errors):
            return
        deltas = [join(held) for held in self._deltas.values()]
        self._send(StepOutput(deltas, self._results, self._errors, running, waiting, self.generated, draft_failures))
        self._deltas, self._results, self._errors = {}, [], []
        self._due, self._urgent = clock + self._seconds, False
