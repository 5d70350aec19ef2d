"""The budget: leases never pass the cap, waiters are woken, reasons are kept."""

from __future__ import annotations

import asyncio
import random

import pytest

from reason_engine.errors import BudgetExhausted
from reason_engine.runtime.budget import FIRST_LEASE, SMALLEST_LEASE, Budget, Lease
from reason_engine.types import Limits


async def test_all_at_once_where_the_cap_allows_it() -> None:
    assert await Budget(Limits(tokens=1000)).lease(10, 100) == Lease(10, 100)
    assert await Budget(Limits()).lease(10, 10_000) == Lease(10, 10_000)


async def test_expected_length_where_it_does_not() -> None:
    budget = Budget(Limits(tokens=5000))
    assert await budget.lease(10, 4000) == Lease(10, FIRST_LEASE)
    budget.settle(10 * FIRST_LEASE, 400, finished=True)
    budget.settle(0, 0, finished=True)
    assert await budget.lease(10, 4000) == Lease(10, 300)  # mean 200, half as much again


async def test_an_even_share_where_little_is_left() -> None:
    assert await Budget(Limits(tokens=100)).lease(50, 1000) == Lease(100 // SMALLEST_LEASE, 16)
    assert await Budget(Limits(tokens=3)).lease(50, 1000) == Lease(1, 3)


async def test_a_waiter_gets_what_comes_back() -> None:
    budget = Budget(Limits(tokens=100))
    await budget.lease(1, 100)
    waiting = asyncio.create_task(budget.lease(1, 50))
    await asyncio.sleep(0)
    assert not waiting.done()
    budget.settle(100, 60, finished=True)
    assert await waiting == Lease(1, 40)


async def test_nothing_left_and_nothing_coming_back_is_exhausted() -> None:
    budget = Budget(Limits(tokens=10))
    lease = await budget.lease(1, 10)
    waiting = asyncio.create_task(budget.lease(1, 1))
    await asyncio.sleep(0)
    budget.settle(lease.tokens, 10)
    with pytest.raises(BudgetExhausted, match="budget-tokens"):
        await waiting
    assert budget.cut == "budget-tokens"


async def test_samples_are_admitted_up_to_the_cap() -> None:
    budget = Budget(Limits(samples=5))
    assert budget.admit(3) == 3
    assert budget.cut is None
    assert budget.admit(3) == 2
    with pytest.raises(BudgetExhausted, match="budget-samples"):
        budget.admit(1)
    assert budget.cut == "budget-samples"


async def test_a_passed_deadline_admits_nothing() -> None:
    budget = Budget(Limits(seconds=0))
    for ask in (lambda: budget.admit(1), lambda: budget.lease(1, 1)):
        with pytest.raises(BudgetExhausted, match="budget-seconds"):
            result = ask()
            if asyncio.iscoroutine(result):
                await result


async def test_shared_budgets_have_one_pool_and_reasons_of_their_own() -> None:
    one = Budget(Limits(tokens=10))
    other = one.share()
    await one.lease(1, 10)
    one.settle(10, 10)
    with pytest.raises(BudgetExhausted):
        await other.lease(1, 1)
    assert (one.cut, other.cut) == (None, "budget-tokens")


@pytest.mark.parametrize("seed", range(20))
async def test_many_paths_together_never_pass_the_cap(seed: int) -> None:
    rng, cap = random.Random(seed), 500
    budget, generated = Budget(Limits(tokens=cap)), 0

    async def path(length: int) -> None:
        nonlocal generated
        done = 0
        while done < length:
            try:
                lease = await budget.lease(1, length - done)
            except BudgetExhausted:
                return
            used = rng.randint(1, lease.tokens)
            for _ in range(used):
                generated += 1
                assert generated <= cap
                await asyncio.sleep(0)
            done += used
            budget.settle(lease.tokens, used, finished=done >= length)

    async with asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(path(rng.randint(1, 60)))
    assert budget.spent == generated <= cap


async def test_a_run_may_be_bound_below_the_cap_that_it_shares() -> None:
    budget = Budget(Limits(tokens=100))
    other = budget.share()
    budget.bound(30)
    assert (budget.free, other.free) == (30, 100)
    first = await budget.lease(1, 50)
    assert (first.tokens, budget.free, other.free) == (30, 0, 70)
    budget.settle(30, 30)
    theirs = await other.lease(1, 20)
    with pytest.raises(BudgetExhausted):  # at once, though another run still holds tokens
        await budget.lease(1, 1)
    assert budget.cut == "budget-tokens" and other.cut is None
    other.settle(theirs.tokens, 20)
    assert (budget.own, other.own, budget.spent) == (30, 20, 50)


async def test_a_bound_without_a_cap() -> None:
    budget = Budget(Limits())
    budget.settle((await budget.lease(1, 40)).tokens, 40)
    budget.bound(60)
    assert budget.free == 20
    budget.bound(10)
    assert budget.free == 0
