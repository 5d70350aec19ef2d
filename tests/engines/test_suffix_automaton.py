"""The automaton against the plain definition: the longest suffix that stood elsewhere, found by trying them all."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from reason_engine.engines.draft_sources import Follower
from reason_engine.engines.suffix_automaton import Match, SuffixAutomaton

texts = st.lists(st.integers(0, 3), max_size=24)
turns = st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 2), min_size=1, max_size=5)), max_size=12)


def followed(corpus: list[list[int]], part: list[int]) -> bool:
    """Whether some token follows an occurrence of `part` in one of the texts."""
    size = len(part)
    return any(text[at : at + size] == part for text in corpus for at in range(len(text) - size))


def longest(corpus: list[list[int]], text: list[int]) -> int:
    """Length of the longest suffix of `text` that something follows in the corpus."""
    return next((n for n in range(len(text), 0, -1) if followed(corpus, text[-n:])), 0)


def check(automaton: SuffixAutomaton, match: Match, text: list[int]) -> None:
    """The match stands where it says, and something follows it."""
    if match.length:
        where = automaton.texts[match.text]
        assert where[match.place - match.length : match.place] == text[len(text) - match.length :]
        assert automaton.after(match, 1) == [where[match.place]]


@given(texts)
@settings(max_examples=60, deadline=None)
def test_repeated_is_the_longest_suffix_that_stood_earlier(tokens: list[int]) -> None:
    automaton, seen = SuffixAutomaton(), list[int]()
    text = automaton.begin()
    for token in tokens:
        text.extend([token])
        seen.append(token)
        match = text.repeated()
        assert match.length == longest([seen], seen)
        check(automaton, match, seen)
        if match.length:  # the first occurrence
            first = next(
                at for at in range(1, len(seen)) if seen[max(0, at - match.length) : at] == seen[-match.length :]
            )
            assert match.place == first


@given(turns)
@settings(max_examples=60, deadline=None)
def test_texts_that_grow_in_turns_find_what_stands_in_each_other(pieces: list[tuple[int, list[int]]]) -> None:
    automaton = SuffixAutomaton()
    growing = [automaton.begin() for _ in range(4)]
    plain: list[list[int]] = [[], [], [], []]
    for number, piece in pieces:
        for token in piece:
            growing[number].extend([token])
            plain[number].append(token)
            match = growing[number].repeated()
            check(automaton, match, plain[number])
            assert match.length == longest(plain, plain[number])
    assert automaton.texts == plain


@given(st.lists(texts, max_size=4), texts)
@settings(max_examples=60, deadline=None)
def test_a_follower_finds_the_longest_suffix_in_other_texts(corpus: list[list[int]], text: list[int]) -> None:
    automaton = SuffixAutomaton(corpus)
    follower = Follower(automaton)
    for place, token in enumerate(text, 1):
        follower.feed([token])
        check(automaton, follower.match, text[:place])
        assert follower.match.length == longest(corpus, text[:place])


def test_what_followed_ends_with_its_text() -> None:
    automaton = SuffixAutomaton([[1, 2, 3], [4, 5]])
    follower = Follower(automaton)
    follower.feed([9, 1])
    assert automaton.after(follower.match, 10) == [2, 3]
    assert automaton.after(follower.match, 1) == [2]
    assert automaton.after(Match(), 10) == []


def test_a_text_that_repeats_itself_is_copied_round() -> None:
    text = SuffixAutomaton().begin()
    text.extend([7, 1, 2, 1, 2])
    assert (text.repeated().length, text.after(text.repeated(), 5)) == (2, [1, 2, 1, 2, 1])


def test_a_sibling_that_is_further_ahead_is_followed() -> None:
    automaton = SuffixAutomaton()
    ahead, behind = automaton.begin(), automaton.begin()
    ahead.extend([5, 6, 7, 8])
    behind.extend([5, 6])
    assert behind.after(behind.repeated(), 4) == [7, 8]
    assert ahead.repeated() == Match()
    behind.extend([7, 8])  # level with it: nothing follows
    assert behind.repeated() == Match()
    behind.extend([9])
    assert ahead.after(ahead.repeated(), 4) == [9]


def test_it_grows_while_it_is_followed() -> None:
    automaton = SuffixAutomaton()
    text, follower = automaton.begin(), Follower(automaton)
    text.extend([1, 2])
    follower.feed([1, 2])
    text.extend([3, 1, 2, 4, 5])
    follower.feed([4])
    assert follower.match.length == 3


def test_it_stays_small() -> None:
    rng = random.Random(0)
    automaton = SuffixAutomaton([[rng.randrange(5) for _ in range(5000)]])
    assert len(automaton._next) <= 2 * 5000  # the known bound: 2n - 1 states
    assert sum(map(len, automaton._next)) <= 3 * 5000  # 3n - 4 transitions
