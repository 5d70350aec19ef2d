"""Holds a growing text back until no rule can still catch it.

With reach L, the most characters of a match, all but the last L are let go: whatever will be found later begins
after them. A match that ends where the text ends so far is not certain yet (`foo` may become `food`) and holds back
everything from its beginning on. At the end the whole text is searched once more, for matches beyond their reach.
Where a rule's reach is not known, nothing is let go before the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from reason_engine.serving.matcher import Matcher, plain


class Tail:
    """One text. `caught` names the rule that stopped it; from then on nothing is let go."""

    def __init__(self, matchers: Sequence[Matcher], *, whole: bool = False) -> None:
        self._matchers = matchers
        reaches = [matcher.reach for matcher in matchers]
        self._reach = None if whole or None in reaches else max((r for r in reaches if r), default=0)
        self._text = ""  # all of it, as rules read it
        self._held = ""  # what was not let go, as it came
        self._gone = 0  # characters of `_text` that were let go
        self.caught: str | None = None

    def feed(self, text: str) -> str:
        """What may be shown after this text."""
        self._held += text
        searched = len(self._text)
        self._text += plain(text)
        if self.caught or self._reach is None:
            return ""
        safe = len(self._text) - self._reach if self._matchers else len(self._text)
        start = max(0, searched - self._reach - 1)
        for matcher in self._matchers:
            if found := matcher.find(self._text, start):
                if found[1] < len(self._text):
                    self.caught = matcher.name
                    return ""
                safe = min(safe, found[0])
        return self._let_go(safe)

    def settle(self) -> str | None:
        """Search the whole text, now that it has ended: the rule that caught it, else None."""
        for matcher in self._matchers:
            if not self.caught and matcher.find(self._text):
                self.caught = matcher.name
        return self.caught

    def rest(self) -> str:
        """What was held back; after `settle`, and only where nothing was caught."""
        held, self._held = self._held, ""
        return held

    def _let_go(self, safe: int) -> str:
        """The longest beginning of what is held whose plain form ends at `safe` or before."""
        count = 0
        for sign in self._held:
            width = len(plain(sign))
            if self._gone + width > safe:
                break
            self._gone += width
            count += 1
        shown, self._held = self._held[:count], self._held[count:]
        return shown
