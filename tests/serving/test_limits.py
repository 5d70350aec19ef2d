"""Admission by engine sequences, the states of a server, and what a request may take at most."""

import asyncio

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.errors import RequestError
from reason_engine.serving.api.errors import Refused
from reason_engine.serving.api.pipeline import check_width, limits_of
from reason_engine.serving.api.schema import Budget
from reason_engine.serving.guard.access import AdmissionGate
from reason_engine.settings import Settings
from reason_engine.strategies import strategies
from reason_engine.types import Limits


def test_room_is_counted_in_sequences() -> None:
    gate = AdmissionGate(10)
    with gate.hold(6):
        with pytest.raises(Refused) as refused, gate.hold(5):
            pass
        assert refused.value.status == 429 and refused.value.headers["retry-after"] == "1"
        with gate.hold(4):
            assert gate.held == 10 and gate.requests == 2
    assert gate.held == gate.requests == 0


def test_a_request_wider_than_everything_runs_alone() -> None:
    gate = AdmissionGate(10)
    with gate.hold(11), pytest.raises(Refused), gate.hold(1):
        pass
    with gate.hold(1), pytest.raises(Refused), gate.hold(11):
        pass


def test_room_comes_back_after_an_error() -> None:
    gate = AdmissionGate(1)
    with pytest.raises(KeyError), gate.hold(1):
        raise KeyError
    assert gate.held == gate.requests == 0


async def test_idle_waits_for_the_last_request() -> None:
    gate, order = AdmissionGate(10), []
    await gate.idle()
    with gate.hold(1):
        task = asyncio.create_task(gate.idle())
        await asyncio.sleep(0)
        order.append(task.done())
    await task
    assert order == [False]


@pytest.mark.parametrize("state", ["loading", "draining", "dead"])
async def test_a_server_that_takes_no_work(local, state) -> None:
    async with local() as house:
        gate = house.app.state.service.gate
        gate.fail(RuntimeError("gone")) if state == "dead" else setattr(gate, state, True)
        got = await house.chat()
        assert got.status_code == 503 and got.headers["retry-after"]
        assert got.json()["error"]["code"] == {"dead": "engine_dead"}.get(state, state)
        assert (await house.http.get("/health/ready")).status_code == 503
        assert (await house.http.get("/health/live")).status_code == (503 if state == "dead" else 200)
        assert house.engine.requests == 0


async def test_a_full_server_says_when_to_come_back(live, eventually) -> None:
    go = asyncio.Event()

    async def gate(request, index, position) -> None:
        await go.wait()

    async with live(Scripted(gate=gate), settings=Settings(capacity=8)) as house:
        vote = {"reasoning": {"strategy": "self-consistency", "n": 6}}
        first = asyncio.create_task(house.chat(**vote))
        await eventually(lambda: house.engine.running == 6)
        for body in (vote, {**vote, "stream": True}, {"n": 3}):
            got = await house.chat(**body)
            assert got.status_code == 429 and got.headers["retry-after"] == "1", got.text
            assert got.json()["error"]["code"] == "queue_full" and got.json()["error"]["type"] == "rate_limit_error"
        second = asyncio.create_task(house.chat(n=2))
        await eventually(lambda: house.engine.running == 8)
        go.set()
        assert (await first).status_code == (await second).status_code == 200
        metrics = (await house.http.get("/metrics")).text
        assert 'reason_rejections_total{reason="queue_full"} 3.0' in metrics
        assert house.app.state.service.gate.held == 0


def test_width_is_n_times_the_strategys_own() -> None:
    vote = strategies.get("self-consistency")(n=16)
    assert check_width(2, vote, Settings()) == 32
    with pytest.raises(RequestError) as wrong:
        check_width(17, vote, Settings())
    assert wrong.value.param == "n" and "nearest valid value is 16" in wrong.value.message
    with pytest.raises(RequestError) as wrong:
        check_width(1, vote, Settings(max_width=15))
    assert wrong.value.param == "reasoning.n"
    with pytest.raises(RequestError, match="<= 2"):
        check_width(3, strategies.get("direct")(), Settings(max_n=2))


def test_the_operators_caps_bound_a_budget() -> None:
    assert limits_of(None, Settings()) == Limits(131_072, 540.0, 1_024)
    assert limits_of(Budget(tokens=5), Settings(max_seconds=7)) == Limits(5, 7.0, 1_024)
    for name, cap in (("tokens", "max_tokens"), ("seconds", "max_seconds"), ("samples", "max_samples")):
        with pytest.raises(RequestError) as wrong:
            limits_of(Budget(**{name: 10}), Settings(**{cap: 9}))
        assert wrong.value.param == f"budget.{name}" and "nearest valid value is 9" in wrong.value.message
