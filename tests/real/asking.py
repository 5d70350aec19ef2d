"""What the tests on a real model ask, and how small every strategy is made for it: seconds, not minutes."""

from __future__ import annotations

from typing import Any

from reason_engine.engines.embedded.front import Embedded
from reason_engine.strategies import Strategy, strategies

QUESTION = "Ann has 12 pens. She buys 5 more. Then Ann uses 3 pens. How many pens does Ann have now?"
TURNS = [
    {"role": "system", "content": "You are a careful assistant."},
    {"role": "user", "content": "What is 2 + 3?"},
    {"role": "assistant", "content": "2 + 3 = 5."},
    {"role": "user", "content": QUESTION},
]
TOKENS, PATH = 240, 40
"""Most tokens of a request and of one of its paths."""

SMALL: dict[str, Any] = {
    "n": 4, "m": 2, "k": 2, "warmup": 2, "visits": 2, "simulations": 2, "parallel": 2, "depth": 3, "rounds": 1,
    "step_tokens": 24,
}  # fmt: skip
"""Options by name: a strategy takes those that it has, so a new one need not be listed."""

NAMES = sorted(strategies)


def options(name: str) -> dict[str, Any]:
    """The options that make this strategy small."""
    fields = strategies.get(name).model_fields
    return {key: value for key, value in SMALL.items() if key in fields}


def small(name: str) -> Strategy:
    """The strategy at that size."""
    return strategies.get(name).model_validate(options(name))


async def generated(engine: Embedded) -> int:
    """Tokens that the engine has made since it began; fails where it is still at work."""
    health = await engine.health()
    assert health.ready and health.running == health.waiting == 0
    return health.generated_tokens
