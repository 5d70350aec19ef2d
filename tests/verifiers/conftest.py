"""A call that must not be made: for verifiers that need no model. Knowledge is empty."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from reason_engine.contracts import Call, Capabilities, Powers, Site, Verifier
from reason_engine.profile import Profile
from reason_engine.runtime.verify import verifier_of
from reason_engine.types import Choice, Draw, Passage, Path, Problem, ScoreRequest, Scores, TokenLogprob


class NoCall:
    """Fails the test when a verifier generates."""

    async def sample(self, prompt: str | None = None, draw: Draw = Draw()) -> list[Path]:
        raise AssertionError("this verifier must not sample")

    async def choice(
        self,
        prompt: str,
        options: tuple[str, ...],
        *,
        prefill: str = "",
        stage: str = "choice",
        after: Path | None = None,
    ) -> Choice:
        raise AssertionError("this verifier must not ask")

    async def rate(self, request: ScoreRequest, stage: str = "rate") -> Scores:
        raise AssertionError("this verifier must not rate")

    @property
    def powers(self) -> Powers:
        return Powers()

    async def retrieve(self, query: str, k: int = 4) -> list[Passage]:
        return []

    def staged(self, stage: str) -> Call:
        return self


class Library(NoCall):
    """A call whose knowledge holds these texts."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    async def retrieve(self, query: str, k: int = 4) -> list[Passage]:
        return [Passage(text, "notes.md") for text in self.texts][:k]


@pytest.fixture
def no_call() -> Call:
    return NoCall()


Build = Callable[..., Verifier]
LINES = Profile(step_end="\n")
"""A model whose steps are lines."""


@pytest.fixture
def build() -> Build:
    """`verifier_of` on an engine that can do everything, unless `caps` says otherwise."""

    def made(
        name: str,
        params: Mapping[str, object] | None = None,
        *,
        caps: Capabilities | None = None,
        profile: Profile | None = None,
        problem: Problem | None = None,
        powers: Powers | None = None,
    ) -> Verifier:
        able = caps or Capabilities(logprobs=20, choose=True, continuation=True)
        return verifier_of(
            name, params or {}, profile or LINES, problem or Problem("?"), able, powers=powers or Powers()
        )

    return made


def path(text: str, *, logprob: float | None = None, node: int = 0, prefill: str = "") -> Path:
    """A finished path of words, each with this log-probability; the answer is what follows `Answer:`."""
    words = [piece for piece in text.replace("\n", "\n\0").replace(" ", " \0").split("\0") if piece]
    logprobs = tuple(TokenLogprob(0, word, logprob) for word in words) if logprob is not None else ()
    answer = text.rpartition("Answer:")[2].strip() if "Answer:" in text else None
    return Path(node, "", prefill + text, logprobs=logprobs, tokens=len(words), answer=answer, prefill=prefill)


__all__ = ["Build", "Library", "NoCall", "Site", "path"]
