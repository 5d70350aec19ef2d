"""Which of several endpoints takes a request, by what they have read and how much they have to do."""

from __future__ import annotations

import pytest

from reason_engine.engines.openai.balance import BEGINNING, Balance, keys_of, rank
from reason_engine.engines.openai.config import OpenAIConfig
from reason_engine.engines.openai.upstream import Upstream
from reason_engine.errors import EngineBusy, EngineError
from reason_engine.types import GenerateRequest
from tests.engines.replicas import Clock


def upstreams(count: int = 3, clock: Clock | None = None) -> list[Upstream]:
    config, now = OpenAIConfig(base_url="http://a/v1"), (clock or Clock()).now
    return [Upstream(f"http://host{number}/v1", config, now) for number in range(count)]


def request(prompt: str | tuple[int, ...] = "x", search: str = "") -> GenerateRequest:
    return GenerateRequest("r", prompt, search=search)


def test_a_beginning_goes_where_it_was_read_until_that_has_more_than_its_share() -> None:
    several = upstreams()
    balance = Balance(several)
    home = balance.pick(request(), 4)
    assert all(balance.pick(request(), 4) is home for _ in range(5))
    home.running = 4  # of 4 + 4 in all a share is 1.25 * 8 / 3, rounded up
    other = balance.pick(request(), 4)
    assert other is not home
    for one in several:
        one.running = 8
    assert balance.pick(request(), 1) is other  # 9 of at most ceil(1.25 * 25 / 3)


def test_a_new_beginning_goes_to_the_least_loaded() -> None:
    several = upstreams()
    several[0].running, several[1].running, several[2].running = 5, 1, 3
    assert Balance(several).pick(request(), 1) is several[1]


def test_a_search_stays_though_its_prompts_begin_otherwise() -> None:
    several = upstreams()
    balance = Balance(several)
    home = balance.pick(request("solve", "s"), 1)
    assert {balance.pick(request(f"judge {number}", "s"), 1) for number in range(9)} == {home}


def test_those_that_rest_are_passed_over_and_the_busy_one_is_better_than_the_dead() -> None:
    clock = Clock()
    dead, busy, well = several = upstreams(clock=clock)
    dead.failed(EngineError("gone"))
    busy.full(EngineBusy("full", pause=30))
    balance = Balance(several)
    assert balance.pick(request(), 1) is well
    assert balance.pick(request(), 1, avoid=[well]) is busy
    clock.at += 1
    assert balance.pick(request(), 1, avoid=[well]) is dead  # its rest is over: worth a try
    assert balance.pick(request(), 1, avoid=several) in (dead, well)


def test_servers_in_front_of_the_same_endpoints_agree() -> None:
    picks = [[Balance(upstreams()).pick(request(f"prompt {number}"), 1).url for number in range(20)] for _ in range(2)]
    assert picks[0] == picks[1] and len(set(picks[0])) == 3
    assert rank("a", "b") == rank("a", "b") != rank("a", "c")


@pytest.mark.parametrize("make", [lambda n: "x" * n, lambda n: (7,) * n], ids=["text", "ids"])
def test_only_the_beginning_counts(make) -> None:
    long = make(2 * BEGINNING)
    assert keys_of(request(long)) == keys_of(request(long[: BEGINNING + 1]))
    assert keys_of(request(long)) != keys_of(request(long[:10]))
    assert keys_of(request("\ud800")) and keys_of(request((-1, 2**31 - 1)))
