"""A call that must not be made: for verifiers that need no model."""

from __future__ import annotations

import pytest

from reason_engine.contracts import Call
from reason_engine.types import Choice, Path


class NoCall:
    """Fails the test when a verifier generates."""

    async def sample(
        self,
        prompt: str | None = None,
        *,
        n: int = 1,
        max_tokens: int | None = None,
        temperature: float | None = None,
        stop: tuple[str, ...] = (),
        prefill: str = "",
        logprobs: int | None = None,
        stage: str = "sample",
    ) -> list[Path]:
        raise AssertionError("this verifier must not sample")

    async def choice(
        self, prompt: str, options: tuple[str, ...], *, prefill: str = "", stage: str = "choice"
    ) -> Choice:
        raise AssertionError("this verifier must not ask")


@pytest.fixture
def no_call() -> Call:
    return NoCall()
