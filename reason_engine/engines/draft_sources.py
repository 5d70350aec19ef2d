"""Where drafts come from: the suffix automaton of a search and of a corpus, or the last n-gram's earlier place.

`sam` is SAM-Decoding (arXiv:2411.10666, section 3): the longest suffix of a sample's text that stands elsewhere, in
what the search was asked and has written (dynamic) or in given texts (static); the longer match drafts. `ngram` is
prompt lookup (Saxena 2023; Yang et al. 2023, arXiv:2304.04487): the latest place of the last three tokens, else two,
in the sample's own prompt and output.

Departures: samples of one search draft from one another's tokens; an output's text begins with the last tokens of its
prompt instead of being joined to it, so that prompts are indexed once and as slowly as one likes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from reason_engine.engines.suffix_automaton import NONE, Match, SuffixAutomaton, Text

LEAD, REACH = 16, 32
"""Tokens of its prompt that an output's text begins with, and up to which a match is followed back."""
SIZES = (3, 2)
"""Lengths of the n-grams that are looked up, longest first."""
LENGTH_CLASSES = 8
"""Matches of 1, 2-3, 4-7, ... tokens, and of 128 or more, are counted apart."""
FIRST = (0.0, 0.35, 0.5, 0.65, 0.75, 0.85, 0.9, 0.95)
"""Shares of right tokens to begin with, counted as WEIGHT observations."""
WEIGHT, FADE = 6.0, 0.999


def length_class(length: int) -> int:
    """The class of a match of at least one token."""
    return min(length.bit_length(), LENGTH_CLASSES) - 1


class AcceptanceRates:
    """Right and tried tokens by the class of the match; `prior` is what it leans on where it knows little."""

    def __init__(self, prior: AcceptanceRates | None = None) -> None:
        self.right, self.tried = [0.0] * LENGTH_CLASSES, [0.0] * LENGTH_CLASSES
        self._prior = prior

    def chance(self, kind: int) -> float:
        """That the next drafted token is right."""
        before = self._prior.chance(kind) if self._prior else FIRST[kind]
        return min((self.right[kind] + WEIGHT * before) / (self.tried[kind] + WEIGHT), 0.995)

    def observe(self, kind: int, drafted: int, right: int) -> None:
        """Tokens after the first wrong one were not tried."""
        self.right[kind] = FADE * self.right[kind] + right
        self.tried[kind] = FADE * self.tried[kind] + right + (right < drafted)
        if self._prior:
            self._prior.observe(kind, drafted, right)


class IndexQueue:
    """Texts that are still to be indexed, a few tokens at a time."""

    def __init__(self) -> None:
        self._left: deque[tuple[Drafter | Text, Iterator[int]]] = deque()

    def add(self, into: Drafter | Text, tokens: Sequence[int]) -> None:
        self._left.append((into, iter(tokens)))

    def __bool__(self) -> bool:
        return bool(self._left)

    def advance(self, count: int) -> None:
        """Index so many more."""
        while count > 0 and self._left:
            into, tokens = self._left[0]
            piece = list(islice(tokens, count))
            (into.extend if isinstance(into, Text) else into.feed)(piece)
            count -= len(piece)
            if count > 0:
                self._left.popleft()


class Follower:
    """Follows a growing text through an automaton that holds other texts."""

    def __init__(self, automaton: SuffixAutomaton) -> None:
        self.automaton, self._state, self._length = automaton, 0, 0

    def feed(self, tokens: Iterable[int]) -> None:
        """The text goes on."""
        for token in tokens:
            self._state, self._length = self.automaton.step(self._state, self._length, token)

    @property
    def match(self) -> Match:
        """The longest suffix of the text that stands in the automaton with something after it."""
        return self.automaton.match(self._state, self._length)


class Sam:
    """Of a text that grows in its search's automaton, and follows the corpus."""

    def __init__(self, text: Text, corpus: Follower | None = None) -> None:
        self._text, self._corpus, self._found, self._given = text, corpus, NONE, False

    def feed(self, tokens: Sequence[int]) -> None:
        self._text.extend(tokens)
        if self._corpus is not None:
            self._corpus.feed(tokens)

    def find(self) -> int:
        self._found = self._text.repeated()
        given = self._corpus.match if self._corpus is not None else NONE
        self._given = given.length > self._found.length
        if self._given:
            self._found = given
        return self._found.length

    def draft(self, count: int) -> list[int]:
        if self._given and self._corpus is not None:
            return self._corpus.automaton.after(self._found, count)
        return self._text.after(self._found, count)


class Ngram:
    """Of its own text, and of `prompt`, another index that is not its own to grow."""

    def __init__(self, prompt: Ngram | None = None) -> None:
        self.tokens: list[int] = []
        self.places: dict[tuple[int, ...], int] = {}
        self._prompt, self._source, self._place = prompt, self.tokens, 0

    def feed(self, tokens: Sequence[int]) -> None:
        """The n-gram that ends the text counts once something follows it."""
        mine, places = self.tokens, self.places
        for token in tokens:
            for size in SIZES:
                if len(mine) >= size:
                    places[tuple(mine[-size:])] = len(mine)
            mine.append(token)

    def find(self) -> int:
        for size in SIZES:
            if len(self.tokens) < size:
                continue
            last = tuple(self.tokens[-size:])
            for index in (self, self._prompt):
                if index is not None and (place := index.places.get(last)) is not None:
                    self._source, self._place = index.tokens, place
                    return self._reach(size)
        return 0

    def _reach(self, length: int) -> int:
        """How much longer than the n-gram the match is, so far as it may matter."""
        mine, source, place = self.tokens, self._source, self._place
        most = min(REACH, len(mine), place)
        while length < most and source[place - 1 - length] == mine[-1 - length]:
            length += 1
        return length

    def draft(self, count: int) -> list[int]:
        found = self._source[self._place : self._place + count]
        if 0 < len(found) < count and self._source is self.tokens:
            return [found[i % len(found)] for i in range(count)]
        return found


Drafter = Sam | Ngram
"""One sample's drafts. `find` says how long the match is that the next `draft` comes from; 0: none."""


class SearchIndex:
    """What the samples of one search share: the automaton of its prompts and outputs, and the prompts' n-grams."""

    def __init__(self, corpus: SuffixAutomaton | None = None) -> None:
        self.queue = IndexQueue()
        self._corpus = corpus
        self._automaton = SuffixAutomaton()
        self._prompts: dict[tuple[int, ...], Ngram] = {}
        self._seen: set[tuple[int, ...]] = set()

    def __len__(self) -> int:
        """Tokens that it holds."""
        return len(self._automaton) + sum(len(prompt.tokens) for prompt in self._prompts.values())

    def sam(self, prompt: tuple[int, ...]) -> Sam:
        """For another sample of that prompt."""
        if prompt not in self._seen:
            self._seen.add(prompt)
            self.queue.add(self._automaton.begin(), prompt)
        made = Sam(self._automaton.begin(), Follower(self._corpus) if self._corpus else None)
        made.feed(prompt[-LEAD:])
        return made

    def ngram(self, prompt: tuple[int, ...]) -> Ngram:
        """For another sample of that prompt."""
        if (known := self._prompts.get(prompt)) is None:
            known = self._prompts[prompt] = Ngram()
            self.queue.add(known, prompt)
        made = Ngram(known)
        made.feed(prompt[-LEAD:])
        return made
