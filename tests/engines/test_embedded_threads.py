"""How many threads a pass takes, by a clock of our own."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reason_engine.engines.embedded.model import loading
from reason_engine.engines.embedded.model.loading import load_decoder
from reason_engine.engines.embedded.model.threads import SHARE, ThreadChoice, counts_for


class Machine:
    """A pass of `tokens` takes `seconds(tokens, threads)`."""

    def __init__(self, counts: tuple[int, ...], seconds: Callable[[int, int], float]) -> None:
        self.seconds, self.now, self.threads = seconds, 0.0, counts[0]
        self.choice = ThreadChoice(counts, self.use, lambda: self.now)
        self.used: list[int] = []

    def use(self, count: int) -> None:
        self.threads = count

    def take(self, tokens: int = 1) -> None:
        self.now += self.seconds(tokens, self.threads)

    def passes(self, number: int, tokens: int = 1) -> list[int]:
        """The counts they took."""
        took: list[int] = []
        for _ in range(number):
            self.choice.begin(tokens)
            took.append(self.threads)
            self.take(tokens)
            self.choice.end()
        return took


def test_the_quickest_count_is_taken_at_start() -> None:
    for seconds, best in ((lambda _, n: 1 / n, 8), (lambda _, n: float(n), 1), (lambda _, n: abs(n - 4) + 1.0, 4)):
        machine = Machine((1, 4, 8), seconds)
        machine.choice.settle(machine.take)
        assert machine.threads == best and machine.passes(3) == [best] * 3


def test_wide_passes_find_their_own_count() -> None:
    """One thread is better for one row, two for sixteen."""
    machine = Machine((1, 2), lambda tokens, n: 1.0 * n if tokens == 1 else 16.0 / n)
    machine.choice.settle(machine.take)
    assert machine.passes(50)[-1] == 1
    wide = machine.passes(2000, 16)
    assert wide[0] == 1 and wide[-1] == 2
    assert wide.index(2) > 50, "a trial waits until it is paid for"
    assert machine.passes(20).count(1) >= 17, "trials aside"


def test_a_machine_that_becomes_busy_is_noticed_and_one_that_becomes_idle() -> None:
    busy = [False]
    machine = Machine((1, 2), lambda _, n: 5.0 if n == 2 and busy[0] else 1 / n)
    machine.choice.settle(machine.take)
    assert machine.passes(100)[-1] == 2
    busy[0] = True
    assert machine.passes(2000)[-1] == 1
    busy[0] = False
    assert machine.passes(5000)[-1] == 2


@pytest.mark.parametrize("loss", [1.02, 1.5, 5.0, 50.0])
def test_trials_cost_no_more_than_their_share(loss: float) -> None:
    """Whatever the loss is, and although times scatter."""
    rng = random.Random(0)
    machine = Machine((1, 2), lambda _, n: (loss if n == 2 else 1.0) * rng.uniform(0.99, 1.05))
    machine.choice.settle(machine.take)
    took = machine.passes(20_000)
    lost = sum(loss - 1 for count in took if count == 2)
    assert lost <= 1.2 * SHARE * 20_000
    assert 2 in took or loss > 40


def test_counts_of_a_machine() -> None:
    assert counts_for(1) == (1,)
    assert counts_for(2) == (1, 2)
    assert counts_for(16) == (1, 8, 16)


def test_only_models_of_some_size_are_timed_and_a_given_number_stays(
    tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "cores", lambda: 2)
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    assert load_decoder(tiny_qwen3).threads is None and set_to[-1] == 1
    monkeypatch.setattr(loading, "SMALL", 0)
    assert load_decoder(tiny_qwen3, threads=2).threads is None and set_to[-1] == 2
    timed = load_decoder(tiny_qwen3).threads
    assert timed is not None and timed.counts == (1, 2) and {1, 2} <= set(set_to)
    assert timed.current == set_to[-1]
