"""The same run in process and against our own server: same answers, same costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from httpx2 import ASGITransport, AsyncClient

from reason_engine.answers import Equality
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import RequestError
from reason_engine.evals.records import RecordFile
from reason_engine.evals.run import EvalPlan, evaluate
from reason_engine.evals.solvers import EvalTarget, LocalSolver, RemoteSolver
from reason_engine.evals.spec import Spec
from reason_engine.profile import Profile, TaskMatch
from reason_engine.serving.app import create_app

PROFILE = Profile(
    tasks=(
        TaskMatch(task="game24", match=r"numbers (?P<numbers>[\d ]+) and .*make (?P<target>\d+)", checker="countdown"),
    )
)
GAME = Spec("game24", {"first": 0, "last": 2})
ARMS = (Spec("direct"), Spec("self-consistency", {"n": 4}), Spec("best-of-n", {"n": 4, "verifier": "countdown"}))


def player(prompt: str, seed: int, index: int) -> str:
    """Solves the second puzzle one time out of two."""
    return f"Let me see.\nAnswer: {'(10 - 4) * 5 - 6 = 24' if seed % 2 else '4 * 6 = 24'}"


async def test_in_process_and_over_http_agree(data: Path) -> None:
    plan = EvalPlan((GAME,), ARMS, data=data, concurrency=1)
    equality = Equality()
    here = await evaluate(plan, LocalSolver(Scripted(player), PROFILE, equality), RecordFile(None))
    engine = Scripted(player)
    await engine.start()
    app = create_app(engine, PROFILE)
    transport = ASGITransport(app=app)
    async with RemoteSolver(EvalTarget(url="http://127.0.0.1"), AsyncClient(transport=transport)) as http:
        there = await evaluate(plan, http, RecordFile(None))
        with pytest.raises(RequestError, match=r"'n'|n:"):
            await evaluate(EvalPlan((GAME,), (Spec("direct", {"n": 4}),), data=data), http, RecordFile(None))
    await app.state.service.equality.close()
    await equality.close()
    # A server does not tell how many of its samples were to be answers.
    assert [replace(r, seconds=0) for r in there] == [replace(r, seconds=0, paths=None) for r in here]
    assert sum(r.completion_tokens for r in there) == engine.generated
    assert [r.correct for r in here if r.strategy.startswith("best-of-n")] == [False, True, False]
