"""Synonym replacement in a question: Wei and Zou 2019, "EDA" (arXiv:1901.11196), section 2, the operation SR.

A share of the words that have a synonym is exchanged, drawn by seed. Left as they are: numbers, code, formulas and
addresses; names (a capital inside a sentence); words that the answer uses, so that both still speak of one thing; and a
word after "a" or "an" whose synonym would need the other. Departures: the lexicon is the user's or a short list of
words that are safe in most senses, not WordNet; stop words need no list, since only listed words change.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from reason_engine.data._texts import kept_spans, words
from reason_engine.errors import SetupError

Lexicon = Mapping[str, tuple[str, ...]]


def replace_words(text: str, answer: str, lexicon: Lexicon, rate: float, seed: int) -> str:
    """The text with about `rate` of its listed words exchanged, at least one where there is one."""
    places = _places(text, frozenset(words(answer)), lexicon)
    if not places:
        return text
    rng = random.Random(seed)
    count = min(len(places), max(1, round(rate * len(places))))
    for match, options in sorted(rng.sample(places, count), key=lambda place: -place[0].start()):
        text = text[: match.start()] + _cased(rng.choice(options), match[0]) + text[match.end() :]
    return text


def load_lexicon(path: Path | None) -> Lexicon:
    """A YAML mapping `word: [synonym, …]` (or `word: one, two`); None: the list of the package. Raises SetupError."""
    import yaml

    where = f"--lexicon {path}"
    try:
        home = files("reason_engine.data").joinpath("synonyms.yaml") if path is None else path
        values: Any = yaml.safe_load(home.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SetupError(f"{where}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not values:
        raise SetupError(f"{where}: must be a mapping of words to their synonyms")
    found: dict[str, tuple[str, ...]] = {}
    for word, entry in values.items():
        options = entry.split(",") if isinstance(entry, str) else entry
        if not isinstance(word, str) or not re.fullmatch(r"[^\W\d_]+", word):
            raise SetupError(f"{where}: {word!r}: must be one word of letters")
        if not isinstance(options, list) or not all(isinstance(one, str) and one.strip() for one in options):
            raise SetupError(f"{where}: {word}: must be a list of synonyms")
        if any(re.search(r"\d", one) for one in options):
            raise SetupError(f"{where}: {word}: a synonym may hold no number")
        found[word.casefold()] = tuple(one.strip() for one in options)
    return found


def _places(
    text: str, barred: frozenset[str], lexicon: Lexicon
) -> list[tuple[re.Match[str], tuple[str, ...]]]:
    spans, found = kept_spans(text), list[tuple[re.Match[str], tuple[str, ...]]]()
    for match in _WORD.finditer(text):
        word, before = match[0].casefold(), text[: match.start()].rstrip()
        if word in barred or any(start < match.end() and match.start() < end for start, end in spans):
            continue
        if match[0][0].isupper() and before and before[-1] not in ".!?:\n\"'":
            continue
        options = lexicon.get(word, ())
        if article := _ARTICLE.search(before):
            vowel = article[1].casefold() == "an"
            options = tuple(one for one in options if (one[0].casefold() in "aeiou") == vowel)
        if options:
            found.append((match, options))
    return found


def _cased(word: str, like: str) -> str:
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[0].upper() + word[1:] if like[0].isupper() else word


_WORD = re.compile(r"(?<![\w'-])[^\W\d_]+(?![\w'-])")
_ARTICLE = re.compile(r"(?:^|\s)(an?)$", re.IGNORECASE)
