"""What every registered strategy promises, whatever it does. A new strategy is tested here by being registered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.errors import EngineError
from reason_engine.runtime.solve import solve
from reason_engine.runtime.trace import Event
from reason_engine.strategies import Strategy, strategies
from reason_engine.types import GenerateRequest, Limits
from tests.strategies.puzzle import PROFILE, hope, play, player, problem

VARIANTS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "auto": ({}, {"effort": "none"}, {"effort": "medium"}, {"verifier": "countdown"}),
    "self-consistency": ({}, {"adaptive": True}),
    "best-of-n": (
        {},
        {"verifier": "countdown"},
        {"choose": "vote"},
        {"choose": "vote", "adaptive": True, "confidence": 0.9},
        {"verifier": "countdown", "adaptive": True},
    ),
    "self-refine": ({}, {"n": 3, "rounds": 2}, {"verifier": "certainty"}),
    "budget-forcing": ({}, {"rounds": 2, "min_tokens": 30, "max_thinking": 40}, {"max_thinking": 9}),
    "confidence": ({}, {"adaptive": False, "keep": 0.5}, {"n": 4, "window": 3, "k": 2}),
    "beam-search": ({}, {"diverse": True, "n": 8}, {"choose": "best", "aggregate": "product"}, {"adaptive": True}),
    "mcts": (
        {},
        {"parallel": 1, "select": "puct"},
        {"evaluate": "verifier"},
        {"evaluate": "rollout", "k": 2},
        {"adaptive": True, "choose": "best"},
    ),
    "tree-of-thoughts": (
        {},
        {"evaluate": "verifier", "verifier": "process-rules"},
        {"search": "breadth", "breadth": 2},
        {"evaluate": "likelihood"},
        {"search": "breadth", "evaluate": "vote"},
        {"generate": "propose"},
    ),
}
CASES = [
    pytest.param(name, fields, id=f"{name}-{','.join(map(str, fields.values())) or 'plain'}")
    for name in strategies
    for fields in VARIANTS.get(name, ({},))
]
every_strategy = pytest.mark.parametrize(("name", "fields"), CASES)


def make(name: str, fields: Mapping[str, Any]) -> Strategy:
    return strategies.get(name).model_validate(fields)


@every_strategy
async def test_gives_an_answer_and_accounts_for_every_token(name: str, fields: Mapping[str, Any]) -> None:
    engine = player()
    outcome = await solve(make(name, fields), problem(), engine, profile=PROFILE, seed=7)
    assert outcome.content
    assert outcome.stopped in ("done", "decided")
    assert outcome.usage.completion == engine.generated > 0
    assert outcome.usage.prompt == engine.prompt_tokens
    assert sum(usage.completion for usage in outcome.usage_by_stage.values()) == outcome.usage.completion
    assert outcome.samples == engine.samples
    assert 0 < outcome.content_tokens <= outcome.usage.completion
    assert engine.running == 0


@every_strategy
@pytest.mark.parametrize("cap", [1, 17, 60])
async def test_never_passes_its_token_budget(name: str, fields: Mapping[str, Any], cap: int) -> None:
    engine = player()
    outcome = await solve(make(name, fields), problem(), engine, profile=PROFILE, limits=Limits(tokens=cap))
    assert outcome.usage.completion == engine.generated <= cap
    assert engine.running == 0
    if outcome.usage.completion == cap:
        assert outcome.stopped in ("budget-tokens", "done")
    assert outcome.content or outcome.finish_reason == "length"


@every_strategy
async def test_never_passes_its_sample_budget(name: str, fields: Mapping[str, Any]) -> None:
    free = await solve(make(name, fields), problem(), player(), profile=PROFILE)
    engine = player()
    outcome = await solve(make(name, fields), problem(), engine, profile=PROFILE, limits=Limits(samples=1))
    assert engine.samples == outcome.samples == 1
    assert outcome.stopped == ("done" if free.samples == 1 else "budget-samples")


@every_strategy
async def test_deadline_hands_in_what_is_there(name: str, fields: Mapping[str, Any]) -> None:
    async def stuck(request: GenerateRequest, index: int, position: int) -> None:
        if position >= 2:
            await asyncio.Event().wait()

    engine = Scripted(play, choose=hope, gate=stuck)
    outcome = await solve(make(name, fields), problem(), engine, profile=PROFILE, limits=Limits(seconds=0.05))
    assert outcome.stopped == "budget-seconds"
    assert outcome.finish_reason == "length"
    assert outcome.usage.completion == engine.generated > 0
    assert engine.running == 0


@every_strategy
async def test_cancellation_leaves_nothing_running(name: str, fields: Mapping[str, Any]) -> None:
    reached = asyncio.Event()

    async def stuck(request: GenerateRequest, index: int, position: int) -> None:
        if position >= 2:
            reached.set()
            await asyncio.Event().wait()

    engine = Scripted(play, choose=hope, gate=stuck)
    task = asyncio.create_task(solve(make(name, fields), problem(), engine, profile=PROFILE))
    await reached.wait()
    assert engine.running > 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.running == 0
    assert engine.aborted == engine.samples


@every_strategy
async def test_trace_is_one_tree_and_the_same_for_the_same_seed(name: str, fields: Mapping[str, Any]) -> None:
    async def once(seed: int) -> list[dict[str, Any]]:
        outcome = await solve(make(name, fields), problem(), player(), profile=PROFILE, seed=seed)
        nodes = outcome.trace.to_json()["nodes"]
        assert [node["parent"] for node in nodes].count(None) == 1
        assert all(node["parent"] is None or node["parent"] < node["id"] for node in nodes)
        assert all(node["closed"] is not None for node in nodes)
        return [{k: v for k, v in node.items() if k not in ("opened", "closed")} for node in nodes]

    first = await once(3)
    assert first == await once(3)
    paths = [node["text"] for node in first if node["role"] == "path"]
    # Some other seed draws other texts: seeds do reach the engine.
    others = [[n["text"] for n in await once(seed) if n["role"] == "path"] for seed in range(4, 12)]
    assert any(other != paths for other in others)


@every_strategy
async def test_narrated_pieces_join_to_the_fields(name: str, fields: Mapping[str, Any]) -> None:
    said: dict[str, str] = {"reasoning": "", "content": ""}
    events: list[Event] = []

    def hear(piece: Any) -> None:
        said[piece.field] += piece.text

    outcome = await solve(make(name, fields), problem(), player(), profile=PROFILE, say=hear, publish=events.append)
    assert said["content"] == outcome.content
    assert (said["reasoning"] or None) == outcome.reasoning
    assert events[0].kind == "opened"
    assert events[-1].kind == "closed"


@every_strategy
async def test_engine_error_leaves_ungrouped(name: str, fields: Mapping[str, Any]) -> None:
    def fail(request: GenerateRequest, index: int, position: int) -> None:
        if position == 3:
            raise EngineError("the card fell out")

    engine = Scripted(play, choose=hope, fail=fail)
    with pytest.raises(EngineError, match="the card fell out"):
        await solve(make(name, fields), problem(), engine, profile=PROFILE)
    assert engine.running == 0


@every_strategy
async def test_width_bounds_what_runs_at_once(name: str, fields: Mapping[str, Any]) -> None:
    engine, strategy = player(), make(name, fields)
    await solve(strategy, problem(), engine, profile=PROFILE)
    assert 1 <= engine.peak <= strategy.width


def test_schema_describes_every_field() -> None:
    for name in strategies:
        cls = strategies.get(name)
        assert cls.name == name
        assert cls.summary
        schema = cls.model_json_schema()
        assert all("description" in field for field in schema["properties"].values())
