"""The tree mathematics, on hand-made trees."""

from __future__ import annotations

from dataclasses import replace

from reason_engine.strategies.search.tree import Thought, keep_best, merge, most_promising, push, unseen
from reason_engine.types import Path, TokenLogprob


def thought(key: str, value: float = 0.0, certainty: float | None = None, *, done: bool = False) -> Thought:
    path = None if certainty is None else Path(0, "", key, logprobs=(TokenLogprob(0, "", certainty),))
    return Thought((key,), key, key, value, path, done)


def test_keep_takes_the_best_in_order() -> None:
    a, b, c = thought("a", 0.2), thought("b", 0.9), thought("c", 0.2)
    assert keep_best([a, b, c], 2) == [b, a]
    assert keep_best([a], 3) == [a]


def test_merge_keeps_the_most_certain_way_to_a_state() -> None:
    sure, unsure, other = thought("a", certainty=-0.1), thought("a", certainty=-2.0), thought("b")
    assert merge([unsure, other, sure]) == [replace(sure, draws=2), other]
    assert merge([thought("a"), thought("a", done=True)]) == [thought("a"), thought("a", done=True)]


def test_push_prunes_and_leaves_the_best_on_top() -> None:
    old, low, mid, high = thought("old", 0.5), thought("low", 0.05), thought("mid", 0.4), thought("high", 0.8)
    stack = push([old], [high, low, mid], threshold=0.05)
    assert stack == [old, mid, high]


def test_widest_prefers_value_per_visit() -> None:
    root, good, poor = thought("root", 1.0), thought("good", 0.6), thought("poor", 0.2)
    assert most_promising({root: 1, good: 1, poor: 1}) == root
    assert most_promising({root: 2, good: 1, poor: 1}) == good
    assert most_promising({root: 2, good: 2, poor: 1}) == root


def test_unseen_drops_visited_states_but_no_answers() -> None:
    assert unseen([thought("a"), thought("b"), thought("a", done=True)], {"a"}) == [
        thought("b"),
        thought("a", done=True),
    ]
