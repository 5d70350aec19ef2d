"""The automaton against the plain definition: the longest suffix that stood earlier, found by trying them all."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from reason_engine.engines.suffix_automaton import BORDER, Follower, Match, SuffixAutomaton

texts = st.lists(st.integers(0, 3), max_size=40)


def first(tokens: list[int], part: list[int]) -> int | None:
    """Where the first occurrence of `part` in `tokens` ends."""
    spots = range(len(tokens) - len(part) + 1)
    return next((at + len(part) for at in spots if tokens[at : at + len(part)] == part), None)


def longest(tokens: list[int], text: list[int]) -> Match:
    """The longest suffix of `text` that stands in `tokens`."""
    for length in range(len(text), 0, -1):
        if (place := first(tokens, text[-length:])) is not None:
            return Match(length, place)
    return Match()


@given(texts)
@settings(max_examples=200, deadline=None)
def test_repeated_is_the_longest_suffix_that_stood_earlier(tokens: list[int]) -> None:
    automaton, seen = SuffixAutomaton(), list[int]()
    for token in tokens:
        automaton.extend([token])
        seen.append(token)
        expected = Match()
        for length in range(len(seen) - 1, 0, -1):
            place = first(seen, seen[-length:])
            if place is not None and place < len(seen):
                expected = Match(length, place)
                break
        assert automaton.repeated() == expected


@given(st.lists(texts, max_size=4), texts)
@settings(max_examples=200, deadline=None)
def test_a_follower_finds_the_longest_suffix_in_other_texts(corpus: list[list[int]], text: list[int]) -> None:
    automaton = SuffixAutomaton(corpus)
    follower = Follower(automaton)
    for place, token in enumerate(text, 1):
        follower.feed([token])
        assert follower.match.length == longest(automaton.tokens, text[:place]).length
        if follower.match.length:
            end = follower.match.place
            assert (
                automaton.tokens[end - follower.match.length : end]
                == text[place - follower.match.length : place]
            )


def test_what_followed_ends_at_the_border_of_its_text() -> None:
    automaton = SuffixAutomaton([[1, 2, 3], [4, 5]])
    follower = Follower(automaton)
    follower.feed([9, 1])
    assert automaton.after(follower.match, 10) == [2, 3]
    assert automaton.after(follower.match, 1) == [2]
    assert automaton.after(Match(), 10) == []
    assert BORDER not in automaton.after(Match(1, 0), 10)


def test_it_grows_while_it_is_followed() -> None:
    automaton = SuffixAutomaton([[1, 2]])
    follower = Follower(automaton)
    follower.feed([1, 2])
    automaton.extend([3, 1, 2, 4])
    follower.feed([4])
    assert follower.match.length == 3
    assert automaton.repeated() == Match()


def test_it_stays_small() -> None:
    rng = random.Random(0)
    automaton = SuffixAutomaton([[rng.randrange(5) for _ in range(5000)]])
    assert len(automaton._next) <= 2 * 5000  # the known bound: 2n - 1 states
    assert sum(map(len, automaton._next)) <= 3 * 5000  # 3n - 4 transitions
