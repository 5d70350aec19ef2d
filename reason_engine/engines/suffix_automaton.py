"""An exact suffix automaton over tokens, for drafting: texts that grow side by side, and a text that is followed.

SAM-Decoding, arXiv:2411.10666, sections 3.1 and 3.2; the automaton itself is Blumer et al. 1985, over several texts as
in Mohri et al. 2009. A state stands for the substrings that end at the same places; `length` is its longest, `link`
leads to the longest suffix in another state. Growing by a token and following a text by a token are both O(1)
amortised: each failed transition shortens a suffix that only one token a step can lengthen.

Departures: the longest suffix of a text that stood earlier is read off the text's own state, so that the dynamic case
needs no match state of its own; and texts may grow in turns, so that the samples of one search share an automaton.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Match:
    """The last `length` tokens of a text stand in text number `text` too, ending just before `place`."""

    length: int = 0
    text: int = 0
    place: int = 0


NONE = Match()


class SuffixAutomaton:
    """The substrings of all its texts. Token ids are not negative."""

    def __init__(self, texts: Iterable[Sequence[int]] = ()) -> None:
        self.texts: list[list[int]] = []
        self._next: list[dict[int, int]] = [{}]
        self._link, self._length, self._text, self._end = [-1], [0], [0], [0]
        for text in texts:
            self.begin().extend(text)

    def __len__(self) -> int:
        return sum(map(len, self.texts))

    def begin(self) -> Text:
        """Another text, empty as yet."""
        self.texts.append([])
        return Text(self, len(self.texts) - 1)

    def after(self, match: Match, count: int) -> list[int]:
        """Up to `count` tokens that followed the match in its text."""
        return self.texts[match.text][match.place : match.place + count] if match.length else []

    def step(self, state: int, length: int, token: int) -> tuple[int, int]:
        """Where a text that stood at (state, length) stands after one more token."""
        nexts, links, lengths = self._next, self._link, self._length
        while state and length <= lengths[links[state]]:  # the state was split since
            state = links[state]
        while state and token not in nexts[state]:
            state = links[state]
            length = lengths[state]
        found = nexts[state].get(token)
        return (0, 0) if found is None else (found, length + 1)

    def match(self, state: int, length: int | None = None) -> Match:
        """The longest suffix of what stands there, of its longest text unless a length is given, that some token
        follows somewhere: where a state leads on."""
        length = self._length[state] if length is None else length
        while state > 0 and not self._next[state]:
            state = self._link[state]
            length = min(length, self._length[state])
        if state <= 0:
            return NONE
        text, place = self._text[state], self._end[state]
        if place == len(self.texts[text]):  # its first occurrence is the end of a text; one that goes on, then
            ahead = next(iter(self._next[state].values()))
            text, place = self._text[ahead], self._end[ahead] - 1
        return Match(length, text, place)

    def grow(self, state: int, token: int, text: int, place: int) -> int:
        """The state of a text that stood at `state` and now has `place` tokens, the last of them `token`."""
        nexts, links, lengths = self._next, self._link, self._length
        if (known := nexts[state].get(token)) is not None:  # the text goes on as another one did
            return known if lengths[known] == lengths[state] + 1 else self._split(state, token, known)
        new = self._state(lengths[state] + 1, text, place, {})
        while state >= 0 and token not in nexts[state]:
            nexts[state][token] = new
            state = links[state]
        if state >= 0:
            target = nexts[state][token]
            links[new] = target if lengths[target] == lengths[state] + 1 else self._split(state, token, target)
        return new

    def _split(self, state: int, token: int, target: int) -> int:
        """A state of its own for the shorter substrings of `target`, which from now on end at more places."""
        nexts, links = self._next, self._link
        clone = self._state(self._length[state] + 1, self._text[target], self._end[target], dict(nexts[target]))
        links[clone], links[target] = links[target], clone
        while state >= 0 and nexts[state].get(token) == target:
            nexts[state][token] = clone
            state = links[state]
        return clone

    def _state(self, length: int, text: int, place: int, nexts: dict[int, int]) -> int:
        self._next.append(nexts)
        self._link.append(0)
        self._length.append(length)
        self._text.append(text)
        self._end.append(place)
        return len(self._next) - 1


class Text:
    """One text of an automaton; it grows at its end, also while others grow."""

    def __init__(self, automaton: SuffixAutomaton, number: int) -> None:
        self.automaton, self.number = automaton, number
        self.tokens = automaton.texts[number]
        self._state = 0

    def extend(self, tokens: Iterable[int]) -> None:
        """The text goes on."""
        grow, mine, state = self.automaton.grow, self.tokens, self._state
        for token in tokens:
            mine.append(token)
            state = grow(state, token, self.number, len(mine))
        self._state = state

    def repeated(self) -> Match:
        """The longest suffix of the text that something follows elsewhere: earlier in it, or in another text."""
        return self.automaton.match(self._state)

    def after(self, match: Match, count: int) -> list[int]:
        """What followed the match, copied round where the match reaches into the end of this text."""
        found = self.automaton.after(match, count)
        if 0 < len(found) < count and match.text == self.number:
            return [found[i % len(found)] for i in range(count)]
        return found
