r"""Forms of an answer that users name themselves: "as JSON", "only the letter", "yes or no", "in \boxed{}". Part of
`answers`.
"""

from __future__ import annotations

import re

from reason_engine.answers.kind import AnswerKind


def named_kind(question: str) -> AnswerKind | None:
    """The kind whose form a question names, if it names one."""
    return next((kind for kind, pattern in _NAMED if pattern.search(question)), None)


def without_form(question: str) -> str:
    """The question without the sentences that ask for a box, an answer's line or hashes: forms of any kind."""
    parts = _SENTENCE.split(question)
    return "".join(part if not _FORM.search(part) else _BOX.sub(" ", part) if "?" in part else " " for part in parts)


BARE = re.compile(
    r"\b(?:only|just) (?:(?:give|state|output|return|write|print|reply with|respond with|answer with) )?"
    r"(?:the|an?|your) (?:final )?(?:answer|result|number|integer|value|letter|name|word)\b|"
    r"\bwithout (?:any )?explanation|\bnothing else\b|\bno explanation\b",
    re.IGNORECASE,
)
"""A wish for the value and nothing else."""

_SENTENCE = re.compile(r"(?<=[.?!] )|(?<=\n)")
_BOX = re.compile(r"\$?\\boxed(?:\{[^{}]*\})?\$?")
_FORM = re.compile(
    r"\b(?:in|within|inside|using|with) (?:an? |the )?[\"'`$]?\\boxed|"
    r"\b(?:starts?|begins?|ends?|form|format)(?: with| of| in)? ?:? ?['\"\u201c`]*(?:the )?(?:final )?answer ?:|"
    r"\bafter (?:an? )?['\"`]?####",
    re.IGNORECASE,
)
_GIVE = r"\b(?:answer|reply|respond|output|return|give|state|write|choose|select|print)(?:ing)?"
_ONLY = r"(?: only| just)?(?: with| as| in)?(?: only| just)?"
_COUNTED = r"(?:one|two|three|four|five|six|seven|eight|[1-8])"
_WORDINGS: tuple[tuple[AnswerKind, str], ...] = (
    (
        "json",
        rf"(?:\b(?:as|in)|{_GIVE}{_ONLY}) (?:an? )?(?:valid |single |one |raw )*json\b(?! (?:file|web|api|parser))|"
        r"\bjson (?:object|schema|format) (?:with|of|that|containing)\b|\bin json format\b",
    ),
    (
        "choice",
        r"\b(?:only|just) (?:with )?(?:the|an?|one) (?:single )?(?:correct |right )?(?:option'?s? )?letter\b|"
        rf"\b(?:enter |{_GIVE}{_ONLY} )?the letter (?:of|for) the (?:correct|right|best)|"
        rf"{_GIVE}{_ONLY} (?:the|an?|one) (?:single )?letter\b",
    ),
    ("yes-no", rf"{_GIVE}{_ONLY}(?: either)? ['\"\u201c]?(?:yes|true)['\"\u201d]? or ['\"\u201c]?(?:no|false)\b"),
    (
        "number",
        rf"{_GIVE}{_ONLY} (?:the|an?|one) (?:single )?(?:number|integer|whole number)\b(?! of\b)|"
        r"\b(?:only|just) (?:the|an?|one) (?:number|integer)\b(?! of\b)",
    ),
    (
        "words",
        r"\b(?:in|with|using|as) (?:only |just |exactly )?"
        r"(?:a single|one|(?:one|1) (?:or|to) (?:two|three|2|3)) words?\b|"
        rf"\bin (?:at most|no more than|up to|under) {_COUNTED} words\b|"
        r"\b(?:only|just) (?:the|an?) (?:name|date|word)\b",
    ),
)
_NAMED: tuple[tuple[AnswerKind, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _WORDINGS
)
