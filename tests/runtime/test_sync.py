"""`solve_sync` opens and closes the engine, and reads the profile beside the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.errors import EngineDead
from reason_engine.profile import Ask, Profile, write_profile
from reason_engine.runtime.solve import solve_sync
from reason_engine.strategies import strategies
from reason_engine.types import Limits, Problem


def test_the_engine_is_started_and_closed() -> None:
    engine = Scripted(lambda prompt, seed, index: "Answer: 7")
    outcome = solve_sync(strategies.get("direct")(), Problem("3 + 4?"), engine, limits=Limits(tokens=50))
    assert (outcome.content, outcome.answer.value) == ("Answer: 7", "7")
    assert outcome.usage.completion == engine.generated
    assert engine.running == 0 and not engine._started  # pyright: ignore[reportPrivateUsage]


def test_the_profile_beside_the_weights_is_used(tmp_path: Path) -> None:
    write_profile(tmp_path, Profile(ask=Ask(steps="Slowly.")))
    engine = Scripted(lambda prompt, seed, index: "Answer: 7")
    engine.info = replace(engine.info, path=str(tmp_path))
    solve_sync(strategies.get("chain-of-thought")(), Problem("3 + 4?"), engine)
    assert "3 + 4?\nSlowly." in str(engine.log[0].prompt)
    solve_sync(strategies.get("chain-of-thought")(), Problem("3 + 4?"), engine, profile=Profile())
    assert "Slowly." not in str(engine.log[1].prompt)


def test_the_engine_is_closed_after_an_error_too() -> None:
    engine = Scripted()
    engine.die()
    with pytest.raises(EngineDead):
        solve_sync(strategies.get("direct")(), Problem("3 + 4?"), engine)
    assert not engine._started  # pyright: ignore[reportPrivateUsage]


async def test_inside_a_loop_it_says_what_to_do_instead() -> None:
    with pytest.raises(RuntimeError, match="await"):
        solve_sync(strategies.get("direct")(), Problem("3 + 4?"), Scripted())
