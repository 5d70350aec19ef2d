"""Letters of listed options, yes and no. Part of `answers`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reason_engine.answers.values.number import quantity
from reason_engine.answers.values.plain import unwrap
from reason_engine.answers.values.words import words

Options = Sequence[tuple[str, str]]
"""Letter and text of each option that a question lists."""


def chosen(value: str, options: Options = ()) -> str | None:
    """The letter that an answer's text chooses, among the options listed (none listed: A to J); None where it names
    none of them or several."""
    if (exact := is_choice(value, options)) is not None:
        return exact
    body = unwrap(value.strip()).rstrip(" .")
    if match := _OPENING.match(body):
        return _listed(match, options)
    named = {_group(match) for match in _NAMED.finditer(body)} or set(_BRACKETED.findall(body)) or _held(body, options)
    letters = {letter.upper() for letter in named}
    return letters.pop() if len(letters) == 1 and letters <= _letters(options) else None


def is_choice(value: str, options: Options = ()) -> str | None:
    """The letter of a value that is nothing but a letter, or the text of exactly one option."""
    body = unwrap(value.strip()).rstrip(" .")
    if match := _LONE.fullmatch(body):
        return _listed(match, options)
    same = [letter.upper() for letter, text in options if text and _same(body, text)]
    return same[0] if len(same) == 1 else None


def last_choice(text: str, options: Options = ()) -> tuple[str | None, str]:
    """The option that the end of a text names, and by which rule: the last "option B", "B is correct" or line that is
    nothing but a letter; the text of exactly one option in the last line; the last letter in bold."""
    letters, found = _letters(options), dict[int, tuple[str, str]]()
    for match in _NAMED.finditer(text):
        found[match.start()] = (_group(match).upper(), "named")
    for match in _LETTER_LINE.finditer(text):
        found[match.start()] = (match[1].upper(), "letter")
    for place in sorted(found, reverse=True):
        if found[place][0] in letters:
            return found[place]
    held = {letter.upper() for letter in _held(text.strip().rpartition("\n")[2], options)}
    if len(held) == 1:
        return held.pop(), "option"
    bold = [letter for letter in _BOLD.findall(text) if letter in letters]
    return (bold[-1] if bold else None), "bold"


def verdict(text: str) -> str | None:
    """`yes`, `no`, `true` or `false`, where a text opens with it."""
    match = _VERDICT.match(unwrap(text.strip()).lstrip("*_`\"'( "))
    return match[1].lower() if match else None


def last_verdict(text: str) -> str | None:
    """The verdict that opens the last paragraph, else the text; None where the last sentence says both."""
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    if not paragraphs:
        return None
    last = re.split(r"[.!?]\s", paragraphs[-1])[-1].casefold()
    if all(re.search(rf"\b{word}\b", last) for word in ("yes", "no")):
        return None
    return verdict(_SO.sub("", paragraphs[-1])) or verdict(text)


def _held(value: str, options: Options) -> set[str]:
    """The letters of the options whose texts stand in a value."""
    spoken = f" {words(value)} "
    return {letter for letter, text in options if (spelt := words(text)) and f" {spelt} " in spoken}


def _letters(options: Options) -> set[str]:
    return {letter.upper() for letter, _ in options} or set("ABCDEFGHIJ")


def _listed(match: re.Match[str], options: Options) -> str | None:
    letter = _group(match).upper()
    return letter if letter in _letters(options) else None


def _group(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group)


def _same(value: str, text: str) -> bool:
    """Whether a value is an option's text, or its number."""
    known, listed = quantity(value), quantity(text)
    if known is not None and listed is not None:
        return known[0] == listed[0] and (not known[1] or not listed[1] or known[1] == listed[1])
    return bool(words(text)) and words(value) == words(text)


_LONE = re.compile(r"(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer) )?\(?([A-Ja-j])\)?[.:]?")
_OPENING = re.compile(
    r"(?:[Oo]ption |[Cc]hoice )?(?:\(([A-Ja-j])\)|([A-Ja-j])[).:](?=[\s*]|$)|([B-J])(?= |,|;|\*)(?! (?:and|or|&) )"
    r"(?!, [A-J]\b)|(A)(?!, [A-J]\b) ?(?=[(,;*\u2013\u2014-]|because|since|is\b))(?! ?(?:and|or|&) )"
)
_NAMED = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice) \**\(?([A-J])\b\)?|"
    r"(?:^|[\s*])\(?([B-J])\)? is (?:the )?(?:correct|right|best)\b|\(([A-J])\) is "
)
_LETTER_LINE = re.compile(r"^[ \t*_]*\(?([A-J])\)?[.:]?[ \t*_]*$", re.MULTILINE)
_BRACKETED = re.compile(r"\(([A-J])\)")
_BOLD = re.compile(r"\*\*\(?([A-J])\b[^*\n]*\*\*")
_VERDICT = re.compile(r"(yes|no|true|false)\b(?! (?:one|matter|longer|more|less)\b)", re.IGNORECASE)
_SO = re.compile(r"^(?:so|thus|therefore|hence|in conclusion|overall|the (?:final )?answer is)[,:]? *", re.IGNORECASE)
