"""One sample on its way: its tokens, its text, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reason_engine.engines._text import Detokenizer, StopFinder, Vocabulary
from reason_engine.engines.embedded.grammar import Matcher
from reason_engine.engines.embedded.messages import Start
from reason_engine.types import FinishReason, TokenLogprob

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
