"""What a search over steps re-reads of its prompt: asked of every engine that continues on token ids."""

from __future__ import annotations

from reason_engine.contracts import Engine
from reason_engine.profile import Profile
from reason_engine.runtime.solve import solve
from reason_engine.strategies import Strategy, strategies
from reason_engine.types import Problem, Sampling

SEARCHES = (
    ("beam-search", {"n": 4, "m": 2, "depth": 3}),
    ("beam-search", {"n": 4, "m": 2, "depth": 3, "diverse": True}),
    ("mcts", {"simulations": 5, "k": 2, "parallel": 2, "evaluate": "verifier"}),
    ("tree-of-thoughts", {"k": 2, "visits": 4, "evaluate": "verifier"}),
)
LONG = 512
ENDLESS = Sampling(max_tokens=0, ignore_eos=True)


def search(name: str, fields: dict[str, object]) -> Strategy:
    """Steps of six tokens each, whatever the model says: a random one ends no lines."""
    return strategies.get(name).model_validate({**fields, "step_tokens": 6, "verifier": "process-rules"})


async def reads_its_prompt_once(engine: Engine, strategy: Strategy, mark: str) -> None:
    """Every call but the first finds at least the first 512 tokens in the cache. `mark` makes the prompt a new one."""
    question = f"{mark}: " + "how much is left of it? " * 24
    outcome = await solve(strategy, Problem(question), engine, profile=Profile(), sampling=ENDLESS)
    usage = outcome.usage
    paths = [node for node in outcome.trace.nodes if node.role == "path"]
    calls = len({node.parent for node in paths})
    assert calls >= 4
    assert outcome.prompt_tokens >= LONG
    assert usage.cached >= LONG * (calls - 1)
    # What is read anew is one prompt and some tokens of each call, not a prompt a call.
    assert usage.prompt - usage.cached < outcome.prompt_tokens + 200 * calls
    assert usage.prompt > outcome.prompt_tokens * (calls - 1)
