"""Monte Carlo tree search: what is particular to it. Its mathematics are tested in `test_uct.py`."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError

from reason_engine.contracts import Capabilities
from reason_engine.engines.scripted import Scripted
from reason_engine.errors import CapabilityMissing, RequestError, VerifierError
from reason_engine.profile import Profile
from reason_engine.runtime.solve import solve
from reason_engine.strategies.mcts import MCTS
from reason_engine.types import GenerateRequest, Limits, Problem
from tests.strategies.puzzle import LOST, hope, play, player, problem
from tests.strategies.puzzle import PROFILE as PUZZLE
from tests.strategies.puzzle import RIGHT as SOLUTION
from tests.strategies.story import PROFILE, QUESTION, steps_judge, tell

pytestmark = pytest.mark.usefixtures(steps_judge.__name__)
__all__ = ["steps_judge"]
ASKED = Problem(QUESTION)


async def test_a_right_answer_ends_the_search() -> None:
    outcome = await solve(MCTS(), problem(), player(), profile=PUZZLE)
    assert outcome.content == SOLUTION[-1]
    assert outcome.answer.confidence == 1.0
    assert outcome.trace.nodes[0].notes["simulations"] < 24


async def test_the_value_leads_and_visits_tell_of_it() -> None:
    outcome = await solve(MCTS(evaluate="verifier", parallel=1), ASKED, Scripted(tell), profile=PROFILE)
    (first, visits, mean), (second, fewer, less) = outcome.trace.nodes[0].notes["first_steps"]
    assert (first, second) == ("3 + 4 = 7", "3 + 4 = 8")
    assert visits > fewer > 1
    assert mean > less
    assert outcome.answer.value == "5"


async def test_simulations_of_one_round_run_together_on_different_states() -> None:
    together: list[int] = []
    engine = Scripted(lambda p, s, i: f"step {s % 97}\n" * 3, gate=None)

    async def look(request: GenerateRequest, index: int, position: int) -> None:
        together.append(engine.running)
        await asyncio.sleep(0)

    engine.gate = look
    outcome = await solve(
        MCTS(evaluate="verifier", simulations=9, k=3, parallel=4, depth=3), ASKED, engine, profile=PROFILE
    )
    assert max(together) > 6
    nodes = outcome.trace.nodes
    rounds = [node.id for node in nodes if node.name.startswith("round")]
    for number in rounds:
        states = [tuple(node.notes["state"]) for node in nodes if node.parent == number]
        assert len(set(states)) == len(states)
    assert len(outcome.trace.children(rounds[0])) == 1  # only the root was there
    steps = [request for request in engine.log if request.sampling.include_stop and request.sampling.temperature]
    assert all(request.n == 3 for request in steps)


async def test_parallel_simulations_leave_no_virtual_loss_behind() -> None:
    engine = Scripted(lambda p, s, i: f"step {s % 97}\n" * 3)
    outcome = await solve(MCTS(evaluate="verifier", simulations=12, parallel=4), ASKED, engine, profile=PROFILE)
    first = outcome.trace.nodes[0].notes["first_steps"]
    # Each simulation below the root adds one visit to a first step; its own evaluation is one more.
    below = [n for n in outcome.trace.nodes if n.name.startswith("simulation") and n.notes["state"]]
    assert len(below) > 4
    assert sum(visits for _, visits, _ in first) == len(below) + len(first)
    assert {mean for _, _, mean in first} == {0.2}  # what every state is worth here: no loss is left in a mean


async def test_playouts_are_judged_at_their_ends_and_count_as_answers() -> None:
    fields = MCTS(evaluate="rollout", simulations=1, k=6, verifier="steps-judge")
    outcome = await solve(fields, ASKED, Scripted(tell), profile=PROFILE)
    assert [(vote.answer, vote.count) for vote in outcome.answer.votes] == [("5", 1), ("6", 1)]
    assert {node.stage for node in outcome.trace.nodes if node.role == "path"} == {"propose", "finish"}
    checked = await solve(MCTS(evaluate="rollout", k=4), problem(), player(), profile=PUZZLE)
    assert checked.content == SOLUTION[-1]
    values = {s["value"] for node in checked.trace.nodes for s in node.scores if s["by"] == "rollout"}
    assert values <= {0.0, 1.0}


async def test_what_values_states_where_nothing_is_said() -> None:
    async def notes(fields: MCTS, profile: Profile, asked: Problem, engine: Scripted) -> tuple[str, str | None]:
        found = (await solve(fields, asked, engine, profile=profile)).trace.nodes[0].notes
        return found["evaluate"], found["verifier"]

    blind = Scripted(play, caps=Capabilities(logprobs=0, continuation=True))
    assert await notes(MCTS(), PUZZLE, problem(), player()) == ("value", None)
    assert await notes(MCTS(), PUZZLE, problem(), blind) == ("rollout", None)
    assert await notes(MCTS(), PROFILE, ASKED, Scripted(tell)) == ("rollout", "steps-judge")
    assert await notes(MCTS(), Profile(), ASKED, Scripted(tell)) == ("rollout", "process-rules")
    assert await notes(MCTS(verifier="certainty"), Profile(), ASKED, Scripted(tell)) == ("rollout", "certainty")
    assert await notes(MCTS(evaluate="verifier"), PUZZLE, problem(), player()) == ("verifier", "process-rules")


async def test_simulations_bound_the_search() -> None:
    engine = Scripted(lambda p, s, i: "so\n")
    outcome = await solve(MCTS(simulations=5, parallel=2), ASKED, engine, profile=PROFILE)
    assert outcome.trace.nodes[0].notes["simulations"] == 5
    assert sum(node.name.startswith("simulation") for node in outcome.trace.nodes) == 5


async def test_a_state_from_which_nothing_legal_comes_is_left_for_its_siblings() -> None:
    def dead(prompt: str, seed: int, index: int) -> str:
        done = [line for line in prompt.rpartition("<assistant>\n")[2].split("\n") if line]
        return "10 - 4 = 7 (left: 5 6 7)" if done and done[0] == LOST[0] else play(prompt, seed, index)

    def misled(prompt: str, options: tuple[str, ...]) -> list[float]:
        return [0.9, 0.1] if "4 5 16" in prompt else hope(prompt, options)

    outcome = await solve(MCTS(parallel=1, k=6), problem(), Scripted(dead, choose=misled), profile=PUZZLE)
    assert outcome.content == SOLUTION[-1]


async def test_adaptive_stops_when_the_vote_is_settled() -> None:
    def ways(prompt: str, seed: int, index: int) -> str:
        return f"Answer: {4 if seed % 5 else 9}" if "way" in prompt else f"way {seed % 31}\n"

    engine, fields = Scripted(ways), MCTS(evaluate="verifier", adaptive=True, simulations=40)
    outcome = await solve(fields, ASKED, engine, profile=PROFILE)
    full = await solve(fields.model_copy(update={"adaptive": False}), ASKED, engine, profile=PROFILE)
    assert outcome.stopped == "decided"
    assert full.stopped == "done"
    assert outcome.samples < full.samples
    assert outcome.answer.value == full.answer.value


async def test_a_budget_that_ends_between_simulations_leaves_the_best_so_far() -> None:
    whole = await solve(MCTS(), ASKED, Scripted(tell), profile=PROFILE)
    cut = await solve(MCTS(), ASKED, Scripted(tell), profile=PROFILE, limits=Limits(tokens=whole.usage.completion // 2))
    assert cut.stopped == "budget-tokens"
    assert cut.answer.value == "5"


async def test_what_is_missing_is_told_before_anything_runs() -> None:
    engine = Scripted(tell, caps=Capabilities(logprobs=0))
    with pytest.raises(CapabilityMissing, match="choose"):
        await solve(MCTS(evaluate="value"), ASKED, engine, profile=Profile())
    with pytest.raises(RequestError, match="judges whole answers") as raised:
        await solve(MCTS(evaluate="verifier", verifier="certainty"), ASKED, engine, profile=PROFILE)
    assert raised.value.param == "reasoning.verifier"
    assert engine.requests == 0


async def test_a_verifier_that_fails_everywhere_is_an_error() -> None:
    fields = MCTS.model_validate({"verifier": {"name": "steps-judge", "params": {"crash": "3"}}})
    with pytest.raises(VerifierError, match="cannot read this"):
        await solve(fields, ASKED, Scripted(tell), profile=PROFILE)


@pytest.mark.parametrize(
    "bad", [{"simulations": 0}, {"parallel": 0}, {"select": "best"}, {"exploration": -1}, {"widening": 2}, {"n": 4}]
)
def test_bad_fields_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MCTS.model_validate(bad)
