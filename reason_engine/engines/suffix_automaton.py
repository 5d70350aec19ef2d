"""An exact suffix automaton over tokens, for drafting: grown token by token, and matched against another text.

SAM-Decoding, arXiv:2411.10666, sections 3.1 and 3.2; the automaton itself is Blumer et al. 1985. A state stands for the
substrings that end at the same places; `length` is its longest, `link` leads to the longest suffix in another state.
Growing by a token and following a text by a token are both O(1) amortised: each failed transition shortens a suffix
that only one token a step can lengthen.

Departure: the longest suffix of the automaton's own text that stood earlier is read off the link of its last state,
so that the dynamic case needs no match state of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BORDER = -1
"""Stands between texts: no match reaches across it."""


@dataclass(frozen=True, slots=True)
class Match:
    """The last `length` tokens of a text stand in the automaton's text too, ending just before `place`."""

    length: int = 0
    place: int = 0


class SuffixAutomaton:
    """The substrings of the tokens given so far. Token ids are not negative."""

    def __init__(self, texts: Iterable[Sequence[int]] = ()) -> None:
        self.tokens: list[int] = []
        self._next: list[dict[int, int]] = [{}]
        self._link, self._length, self._end = [-1], [0], [0]
        self._last = 0
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, text: Sequence[int]) -> None:
        """Another text, apart from those before it."""
        if self.tokens:
            self.tokens.append(BORDER)
            self._last = 0
        self.extend(text)

    def extend(self, tokens: Iterable[int]) -> None:
        """The text goes on."""
        for token in tokens:
            self._grow(token)

    def repeated(self) -> Match:
        """The longest suffix of the text that stood earlier in it, and what followed its first occurrence."""
        state = self._link[self._last]
        return Match(self._length[state], self._end[state]) if state > 0 else Match()

    def after(self, match: Match, count: int) -> list[int]:
        """Up to `count` tokens that followed the match, ending at the border of its text."""
        if not match.length:
            return []
        found = self.tokens[match.place : match.place + count]
        return found[: found.index(BORDER)] if BORDER in found else found

    def _grow(self, token: int) -> None:
        nexts, links, lengths = self._next, self._link, self._length
        self.tokens.append(token)
        here = len(self.tokens)
        known = nexts[self._last].get(token)
        if known is not None:  # only after a border: the text begins as another one did
            self._last = (
                known if lengths[known] == lengths[self._last] + 1 else self._split(self._last, token, known)
            )
            return
        new = self._state(lengths[self._last] + 1, here, {})
        state = self._last
        while state >= 0 and token not in nexts[state]:
            nexts[state][token] = new
            state = links[state]
        if state < 0:
            links[new] = 0
        else:
            target = nexts[state][token]
            links[new] = (
                target if lengths[target] == lengths[state] + 1 else self._split(state, token, target)
            )
        self._last = new

    def _split(self, state: int, token: int, target: int) -> int:
        """A state of its own for the shorter substrings of `target`, which from now on end at more places."""
        nexts, links = self._next, self._link
        clone = self._state(self._length[state] + 1, self._end[target], dict(nexts[target]))
        links[clone], links[target] = links[target], clone
        while state >= 0 and nexts[state].get(token) == target:
            nexts[state][token] = clone
            state = links[state]
        return clone

    def _state(self, length: int, end: int, nexts: dict[int, int]) -> int:
        self._next.append(nexts)
        self._link.append(0)
        self._length.append(length)
        self._end.append(end)
        return len(self._next) - 1

    def step(self, state: int, length: int, token: int) -> tuple[int, int]:
        """Where a text that stood at (state, length) stands after one more token."""
        nexts = self._next
        while state and token not in nexts[state]:
            state = self._link[state]
            length = self._length[state]
        found = nexts[state].get(token)
        return (0, 0) if found is None else (found, length + 1)

    def place(self, state: int) -> int:
        """Where the first occurrence of a state's substrings ends."""
        return self._end[state]


class Follower:
    """Follows a growing text through an automaton that holds other texts."""

    def __init__(self, automaton: SuffixAutomaton) -> None:
        self._automaton, self._state, self._length = automaton, 0, 0

    def feed(self, tokens: Iterable[int]) -> None:
        """The text goes on."""
        for token in tokens:
            self._state, self._length = self._automaton.step(self._state, self._length, token)

    @property
    def match(self) -> Match:
        """The longest suffix of the text that stands in the automaton."""
        return Match(self._length, self._automaton.place(self._state)) if self._length else Match()
