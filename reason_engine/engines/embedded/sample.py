"""One running sample: its tokens and text, and where it ends."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reason_engine.engines.embedded.grammar import Matcher
from reason_engine.engines.embedded.messages import Delta, Generate
from reason_engine.engines.text import Detokenizer, StopFinder, Vocabulary
from reason_engine.types import FinishReason, TokenLogprob

if TYPE_CHECKING:
    from reason_engine.engines.embedded.drafting import SampleDrafter
    from reason_engine.engines.embedded.sampling.sampler import RawLogprob


@dataclass(slots=True, eq=False)
class Sample:
    """`ids` is prompt and answer together; `prompt` tokens of it were given. It ends at `limit` tokens in all."""

    request: Generate
    index: int
    ids: list[int]
    prompt: int
    limit: int
    ends: frozenset[int]
    vocabulary: Vocabulary
    text: Detokenizer
    stops: StopFinder
    matcher: Matcher | None = None
    adapter: int = 0
    space: Hashable = None
    learned: int = 0
    """How many of the given tokens, the first ones, are its adapter's own."""
    reports_prompt: bool = False
    """Whether it reports the prompt's tokens: one sample of a request does, the first that is left of it."""
    prompt_counts: tuple[int, int] = (0, 0)
    """Prompt and cached tokens, until they are reported."""
    drafter: SampleDrafter | None = None
    finish: FinishReason | None = None
    stop_reason: str | int | None = None
    number: int = 0
    """Of all samples, in the order in which they were asked for."""

    def extend(self, tokens: Sequence[int], logprobs: Sequence[RawLogprob] | None = None, drafted: int = 0) -> Delta:
        """Go on by drawn tokens, up to its end; sets `finish` there. `drafted`: how many were drafted, of which all
        of `tokens` but the last were right."""
        wanted = self.request.sampling.logprobs
        shown, reported = "", list[TokenLogprob]()
        taken = 0
        for taken, token in enumerate(tokens, 1):
            shown += self._append(token)
            if wanted is not None and logprobs is not None:
                reported.append(self._logprob(token, logprobs[taken - 1], wanted))
            if self.finish is not None:
                break
        accepted = min(taken, len(tokens) - 1)
        return self._delta(shown, tokens[:taken], reported, (accepted, drafted - accepted))

    def abort(self) -> Delta:
        """End it from outside; shows the text that was held back."""
        self.finish = "abort"
        return self._delta(self._rest())

    def _append(self, token: int) -> str:
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

    def _logprob(self, token: int, raw: RawLogprob, count: int) -> TokenLogprob:
        """With the texts of the tokens, and no more alternatives than were asked for."""
        name = self.vocabulary.text_of
        return TokenLogprob(token, name(token), raw[0], tuple((t, name(t), v) for t, v in raw[1][:count]))

    def _rest(self) -> str:
        shown, found = self.stops.feed(self.text.finish())
        return shown if found is not None else shown + self.stops.finish()

    def _delta(
        self,
        text: str,
        ids: Sequence[int] = (),
        logprobs: Sequence[TokenLogprob] = (),
        drafts: tuple[int, int] = (0, 0),
    ) -> Delta:
        gained = (text, tuple(ids), tuple(logprobs), self.finish, self.stop_reason)
        counts, self.prompt_counts = self.prompt_counts, (0, 0)
        return Delta(self.request.id, self.index, *gained, *counts, *drafts)
