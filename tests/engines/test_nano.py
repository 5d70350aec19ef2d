"""What lies beside the bundled weights does what the card says."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from reason_engine.data import STEPS
from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.open import bundled_model
from reason_engine.recipes.words import WordProblems
from reason_engine.steps import step_ends
from reason_engine.types import GenerateRequest, Message, Sampling, ScoreRequest

NANO = bundled_model() or Path()


@pytest_asyncio.fixture
async def nano() -> AsyncIterator[Embedded]:
    engine = Embedded(NANO, inline=True, threads=1)
    await engine.start()
    yield engine
    await engine.close()


async def solved(engine: Embedded, adapter: str | None) -> int:
    """Of 24 development problems, one sample each."""
    right = 0
    for place, problem in enumerate(WordProblems(steps=(5, 8), digits=(1, 2)).development(24, 3)):
        asked = engine.render_chat([Message("user", f"{problem.question}\n{STEPS}")])
        sampling = Sampling(max_tokens=160, temperature=0.7, seed=zlib.crc32(f"{place}".encode()))
        request = GenerateRequest(f"{adapter}-{place}", asked, 1, sampling, adapter=adapter)
        text = "".join([chunk.text async for chunk in engine.generate(request)])
        right += text.endswith(f"Answer: {problem.reference}")
    return right


async def test_the_adapter_beside_nano_solves_more_at_the_first_try(nano: Embedded) -> None:
    await nano.load_adapter("grpo", str(NANO / "adapters" / "grpo"))
    base, tuned = await solved(nano, None), await solved(nano, "grpo")
    assert base < tuned


async def test_the_heads_beside_nano_find_a_wrong_sum(nano: Embedded) -> None:
    assert dict(nano.caps.rewards)["nano-process"] == "process"
    asked = f"Ben has 62 stickers. He collects another 40. He loses 34 of them. How many does Ben have?\n{STEPS}"
    right, wrong = "62 + 40 = 102\n102 - 34 = 68\nAnswer: 68", "62 + 40 = 103\n103 - 34 = 69\nAnswer: 69"
    request = ScoreRequest(
        "s",
        (right, wrong),
        "token_reward",
        "nano-process",
        (Message("user", asked),),
        (step_ends(right, "\n"), step_ends(wrong, "\n")),
    )
    good, bad = (await nano.score(request)).values
    assert min(good) > 0 > max(bad)
    whole = ScoreRequest("w", (right, wrong), "reward", "nano-outcome", (Message("user", asked),))
    (better,), (worse,) = (await nano.score(whole)).values
    assert better > worse + 1
