"""Looks for what a rule names, in a text of any length and in bounded time.

A text is compared without its invisible characters and in its compatibility form, so `ｂａｄ` is `bad`.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import regex

SECONDS = 0.5
"""A pattern that needs longer for one search counts as found: what cannot be checked is not let through."""


ALONE = 10_000
"""Characters from which on a search lets the other threads go on."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """A rule that looks for text. `reach`: the most characters of a match; None where that is not known."""

    name: str
    pattern: regex.Pattern[str]
    reach: int | None

    def find(self, text: str, start: int = 0) -> tuple[int, int] | None:
        """(begin, end) of the first match at or after `start`; all the rest where the search takes too long."""
        return search(self.pattern, text, start)


async def first_broken(matchers: Sequence[Matcher], texts: Sequence[str]) -> str | None:
    """The first rule that one of these texts, of any length, breaks; the loop goes on meanwhile."""
    return await asyncio.to_thread(broken, matchers, texts) if matchers and texts else None


def broken(matchers: Sequence[Matcher], texts: Sequence[str]) -> str | None:
    for text in map(plain, texts):
        for matcher in matchers:
            if matcher.find(text):
                return matcher.name
    return None


def plain(text: str) -> str:
    """The text as rules read it."""
    return text if text.isascii() else "".join(map(_plain, text))


@lru_cache(maxsize=4096)
def _plain(sign: str) -> str:
    return "" if unicodedata.category(sign) == "Cf" else unicodedata.normalize("NFKC", sign)


def strings(value: object, *, keys: bool = False) -> Iterator[str]:
    """Every text inside a JSON value; the names of its fields too with `keys`."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in cast("Mapping[Any, Any]", value).items():
            if keys:
                yield str(key)
            yield from strings(inner, keys=keys)
    elif isinstance(value, list | tuple):
        for inner in cast("Sequence[Any]", value):
            yield from strings(inner, keys=keys)


def search(pattern: regex.Pattern[str], text: str, start: int = 0) -> tuple[int, int] | None:
    """(begin, end) of the first match at or after `start`; all the rest where it takes too long."""
    try:
        found = pattern.search(text, start, timeout=SECONDS, concurrent=len(text) > ALONE)
    except TimeoutError:
        return start, len(text)
    return found.span() if found else None
