"""Forced answers in front of a remote endpoint: by a begun turn where it goes on with one, else in one more turn."""

from __future__ import annotations

import math
from typing import Any

import pytest

from reason_engine.runtime.solve import Outcome, solve
from reason_engine.strategies.direct import Direct
from reason_engine.strategies.self_consistency import SelfConsistency
from reason_engine.types import Limits, Problem
from tests.engines.asking import Running
from tests.engines.endpoint import Endpoint, choice, usage

ASKED = Problem("How many apples are 6 times 12?")
RAMBLE = "Well, there are many of them, as I said"


def endpoint(last: str, *, forced: float = 0.9, thought: str = "") -> Endpoint:
    """Rambles without an answer; asked once more, in whichever way, it says `last`, each token with that chance."""

    def script(body: dict[str, Any]) -> Any:
        *_, turn = body["messages"]
        again = turn["role"] == "assistant" or turn["content"].startswith("Give only the final answer")
        said = last if again else RAMBLE
        reasoning = [choice(reasoning=thought)] if thought and not again else []
        places = {"content": [{"token": said, "logprob": math.log(forced), "top_logprobs": []}]}
        told = {"choices": [{"index": 0, "delta": {"content": said}, "logprobs": places}]}
        shown = [] if thought and not again else [told]
        return [*reasoning, *shown, choice(finish="stop"), usage(9, 4)]

    return Endpoint(script)


async def forced(made: Endpoint, **config: Any) -> Outcome:
    async with Running(made.engine(**config)) as engine:
        return await solve(SelfConsistency(n=1), ASKED, engine, limits=Limits(tokens=1000))


async def test_a_begun_turn_is_continued() -> None:
    made = endpoint("72}$ indeed")
    outcome = await forced(made, prefill="turn")
    assert outcome.answer.value == "72"
    assert made.bodies[-1]["messages"][-1] == {
        "role": "assistant",
        "content": f"{RAMBLE}\n\nThe final answer is \\boxed{{",
    }
    (path,) = [node for node in outcome.trace.nodes if node.role == "path"]
    assert (path.strength, path.weight) == ("forced", pytest.approx(0.9))
    assert outcome.usage.completion == 8  # both requests, as the endpoint counts them


@pytest.mark.parametrize("last", ["\\boxed{72}", "72"])
async def test_an_endpoint_that_continues_nothing_gets_one_more_turn(last: str) -> None:
    made = endpoint(last)
    outcome = await forced(made, prefill="no")
    assert outcome.answer.value == "72"
    first, second = made.bodies
    *asked, work, again = second["messages"]
    assert asked == [{"role": "user", "content": ASKED.question}]
    assert work == {"role": "assistant", "content": RAMBLE}
    assert again["role"] == "user" and "boxed" in again["content"]
    assert second["max_tokens"] <= 32
    assert first["messages"][0]["content"].startswith(ASKED.question)
    assert outcome.content.endswith("\\boxed{72}")
    (path,) = [node for node in outcome.trace.nodes if node.role == "path"]
    assert (path.strength, path.weight) == ("forced", pytest.approx(0.9))


async def test_a_turn_without_an_answer_leaves_the_path_without_one() -> None:
    outcome = await forced(endpoint("I cannot say."), prefill="no")
    assert outcome.answer.value is None
    assert outcome.content == RAMBLE


@pytest.mark.parametrize(("prefill", "last"), [("turn", "72}"), ("no", "72")])
async def test_a_thought_is_the_work_where_nothing_else_was_said(prefill: str, last: str) -> None:
    made = endpoint(last, thought="6 * 12 = 72")
    outcome = await forced(made, prefill=prefill)
    assert outcome.answer.value == "72"
    turns = [turn["content"] for turn in made.bodies[-1]["messages"] if turn["role"] == "assistant"]
    assert len(turns) == 1 and turns[0].startswith("6 * 12 = 72") and "think>" not in turns[0]


@pytest.mark.parametrize("known", [False, True], ids=["first request", "later"])
async def test_a_thought_is_reasoning_from_the_first_request_on(known: bool) -> None:
    events = [choice(reasoning="6 * 12"), choice(content="It is"), choice(content=" 72."), choice(finish="stop")]
    said: list[tuple[str, str]] = []
    async with Running(Endpoint(lambda body: events).engine()) as engine:
        if known:
            await solve(Direct(), ASKED, engine)
        outcome = await solve(Direct(), ASKED, engine, say=lambda piece: said.append((piece.field, piece.text)))
    assert (outcome.reasoning, outcome.content) == ("6 * 12", "It is 72.")
    assert said[0] == ("reasoning", "6 * 12")
