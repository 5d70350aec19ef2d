"""A sample whose endpoint broke off goes on at another one.

Where nothing of it had come it is drawn there as it was asked for. Where some had, it goes on behind its own text: its
ids appended to a prompt of ids, its text to a prompt of text, or as a begun answer. What cannot be continued (no begun
answers there, a grammar in its middle) is drawn again from its seed, and what was already shown is left out as long as
it is the same; where it is not, the sample is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from reason_engine.engines.openai.wire.conversation import decode
from reason_engine.types import Chunk, GenerateRequest, ModelInfo

OTHER_DRAWS = 1_000_003
"""Between the seeds of a sample and of its continuation, which would repeat the draws of its beginning."""


@dataclass(slots=True)
class Sample:
    """How far one sample has come: what was shown of it."""

    text: str = ""
    ids: list[int] = field(default_factory=list[int])
    tokens: int = 0
    done: bool = False
    turns: int = 0
    replay: Replay | None = None

    def add(self, chunk: Chunk) -> None:
        self.text += chunk.text
        self.ids.extend(chunk.token_ids)
        self.tokens += chunk.token_count
        self.done = chunk.finish_reason is not None

    def thinks(self, info: ModelInfo) -> bool:
        """Whether it stands in the middle of a thought."""
        return self.text.rfind(info.think_start) > self.text.rfind(info.think_end)


class Diverged(Exception):
    """A sample that was drawn again became another one."""


class Replay:
    """Leaves out of a sample that is drawn again what was shown of it before."""

    def __init__(self, text: str, tokens: int) -> None:
        self._text, self._tokens = text, tokens
        self._said, self._drawn = "", 0

    def rest(self, chunk: Chunk) -> Chunk | None:
        """The chunk without what was shown, None where nothing is left. Raises Diverged."""
        before, self._said = len(self._said), self._said + chunk.text
        shared = min(len(self._said), len(self._text))
        ended = chunk.finish_reason and len(self._said) < len(self._text)
        if ended or self._said[:shared] != self._text[:shared]:
            raise Diverged
        drawn, self._drawn = self._drawn, self._drawn + chunk.token_count
        new = max(0, self._drawn - max(drawn, self._tokens))
        text = chunk.text[max(0, len(self._text) - before) :]
        if not (text or new or chunk.finish_reason):
            return None
        kept = chunk.logprobs[len(chunk.logprobs) - new :] if new else ()
        ids = chunk.token_ids[len(chunk.token_ids) - new :] if new else ()
        return replace(chunk, text=text, token_ids=ids, token_count=new, logprobs=kept)


def remaining(request: GenerateRequest, index: int, sample: Sample, *, prefills: bool) -> GenerateRequest:
    """The request for what is left of one sample; sets `sample.replay` where it must be drawn again. `prefills`: the
    endpoints go on with begun answers."""
    sampling = request.sampling
    sample.replay = None
    alone = replace(request, n=1, sampling=replace(sampling, seed=sampling.seed + index))
    if not (sample.text or sample.tokens):
        return alone
    prompt = _continued(request, sample, prefills)
    if prompt is None:
        sample.replay = Replay(sample.text, sample.tokens)
        return alone
    sample.turns += 1
    seed = (sampling.seed + index + OTHER_DRAWS * sample.turns) % 2**31
    left = sampling.max_tokens - sample.tokens
    return replace(alone, prompt=prompt, sampling=replace(sampling, seed=seed, max_tokens=left))


def _continued(request: GenerateRequest, sample: Sample, prefills: bool) -> str | tuple[int, ...] | None:
    """The prompt with what the sample has said behind it; None where no endpoint would go on with that."""
    prompt = request.prompt
    if request.sampling.structured is not None or sample.tokens >= request.sampling.max_tokens:
        return None
    if not isinstance(prompt, str):
        return (*prompt, *sample.ids) if sample.ids and len(sample.ids) == sample.tokens else None
    return prompt + sample.text if prefills or decode(prompt) is None else None
