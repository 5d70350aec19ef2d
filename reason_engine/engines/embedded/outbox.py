"""What is to be told, gathered over a few milliseconds so that a fast model does not swamp its reader."""

from __future__ import annotations

import time
from collections.abc import Callable

from reason_engine.engines.embedded.messages import Delta, Step
from reason_engine.engines.embedded.row import Row
from reason_engine.types import Choice, Scores, TokenLogprob


class Outbox:
    """Deltas of the same sample are joined until `send`. Counts every token it is given."""

    def __init__(self, send: Callable[[Step], None], seconds: float) -> None:
        self._send, self._seconds = send, seconds
        self._texts: dict[Row, tuple[list[str], list[int], list[TokenLogprob]]] = {}
        self._results: list[tuple[str, Choice | Scores | None]] = []
        self._errors: list[tuple[str, Exception]] = []
        self._due = 0.0
        self._urgent = False
        self.generated = 0

    def text(self, row: Row, text: str, token: int | None, logprob: TokenLogprob | None = None) -> None:
        """A sample gained a token (or ended without one); a first or last piece does not wait."""
        held = self._texts.get(row)
        if held is None:
            held = self._texts[row] = ([], [], [])
        if text:
            held[0].append(text)
        if token is not None:
            self.generated += 1
            held[1].append(token)
        if logprob is not None:
            held[2].append(logprob)
        self._urgent = self._urgent or row.finish is not None or row.announced is not None

    def result(self, request_id: str, value: Choice | Scores | None = None) -> None:
        self._results.append((request_id, value))
        self._urgent = True

    def error(self, request_id: str, error: Exception) -> None:
        self._errors.append((request_id, error))
        self._urgent = True

    def flush(self, running: int, waiting: int, now: bool = False, failures: int = 0) -> None:
        """Send what there is, if it is time."""
        clock = time.monotonic()
        if not (self._texts or self._results or self._errors) or not (
            now or self._urgent or clock >= self._due
        ):
            return
        deltas = [_delta(row, *held) for row, held in self._texts.items()]
        self._send(Step(deltas, self._results, self._errors, running, waiting, self.generated, failures))
        self._texts, self._results, self._errors = {}, [], []
        self._due, self._urgent = clock + self._seconds, False


def _delta(row: Row, texts: list[str], ids: list[int], logprobs: list[TokenLogprob]) -> Delta:
    prompt, cached = row.announced or (0, 0)
    accepted, rejected = row.accepted, row.rejected
    row.announced, row.accepted, row.rejected = None, 0, 0
    return (
        row.request.id, row.index, "".join(texts), tuple(ids), tuple(logprobs), row.finish, row.stop_reason,
        prompt, cached, accepted, rejected,
    )  # fmt: skip
