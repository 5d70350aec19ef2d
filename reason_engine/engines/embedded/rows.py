"""One sample on its way: its tokens, its text, and when it ends.

What is to be told, gathered over a few milliseconds so that a fast model does not swamp its reader.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reason_engine.engines.embedded.grammar import Matcher
from reason_engine.engines.embedded.messages import Delta, Start, Step
from reason_engine.engines.text import Detokenizer, StopFinder, Vocabulary
from reason_engine.types import Choice, FinishReason, Scores, TokenLogprob

if TYPE_CHECKING:
    from reason_engine.engines.embedded.drafting import Drafts


Raw = tuple[float, list[tuple[int, float]]]


@dataclass(slots=True, eq=False)
class Row:
    """`ids` is prompt and answer together; `prompt` tokens of it were given. It ends at `limit` tokens in all."""

    request: Start
    index: int
    seed: int
    ids: list[int]
    prompt: int
    limit: int
    ends: frozenset[int]
    vocabulary: Vocabulary
    text: Detokenizer
    stops: StopFinder
    matcher: Matcher | None = None
    adapter: int = 0
    space: object = None
    learned: int = 0
    """How many of the given tokens, the first ones, are its adapter's own."""
    tells: bool = False
    """Whether it reports the prompt's tokens: one row of a request does, the first that is left of it."""
    announced: tuple[int, int] | None = None
    """Prompt and cached tokens, until they have been told."""
    drafts: Drafts | None = None
    accepted: int = 0
    rejected: int = 0
    """Drafted tokens that were right and wrong, until they have been told."""
    finish: FinishReason | None = None
    stop_reason: str | int | None = None

    def take(self, token: int) -> str:
        """Go on by one drawn token; the text that may be shown now. Sets `finish` where this was the last."""
        self.ids.append(token)
        if token in self.ends:
            self.finish = "stop"
            self.stop_reason = token if token in self.request.sampling.stop_token_ids else None
            return self._rest()
        shown, found = self.stops.feed(self.text.feed(token))
        if found is not None:
            self.finish, self.stop_reason = "stop", found
        elif self.matcher is not None and self.matcher.take(token):
            self.finish = "stop"
            shown += self._rest()
        elif len(self.ids) >= self.limit:
            self.finish = "length"
            shown += self._rest()
        return shown

    def cut(self) -> str:
        """End it from outside; the text that was held back."""
        self.finish = "abort"
        return self._rest()

    def logprob(self, token: int, raw: Raw) -> TokenLogprob:
        """As reported: with the texts of the tokens, and no more alternatives than were asked for."""
        wanted = self.request.sampling.logprobs or 0
        name = self.vocabulary.text_of
        return TokenLogprob(token, name(token), raw[0], tuple((t, name(t), v) for t, v in raw[1][:wanted]))

    def _rest(self) -> str:
        shown, found = self.stops.feed(self.text.finish())
        return shown if found is not None else shown + self.stops.finish()


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
