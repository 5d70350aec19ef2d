"""The words and marks that say where an answer comes, and those after which none comes. Part of `answers`."""

from __future__ import annotations

import re

EDGE = " \t*_`"
DECORATION = " \t>*#_-`\u2022"
OPENERS = re.compile(r"(?:\\\[|\\\(|\\\]|\$\$?|```\w*|[*_`>:#.\s-])*")
BOX = re.compile(r"\\(?:boxed|fbox) ?(?:\{|([A-Za-z0-9])(?![A-Za-z0-9]))")
_NAME = r"(?:(?:so|thus|therefore|hence),? )?(?:the |my )?(?:(?:final|correct|right|best) )?"
_OF = r"(?: \([^()\n]*\)| (?:to|for|in|of) [^:\n]{1,60}?(?=:))?"
LABEL = re.compile(
    rf"(?:\d{{1,2}}[.)] +)?{_NAME}answer{_OF}(?:[*_`]* ?(?:is\b ?:?|[:=\u2013]|- )(?P<rest>.*)|[*_`:]*)", re.IGNORECASE
)
RESULT = re.compile(
    rf"{_NAME}(?:result|conclusion){_OF}(?:[*_`]* ?(?:is\b ?:?|[:=])(?P<rest>.*)|[*_`:]*)", re.IGNORECASE
)
AGAIN = re.compile(rf"{_NAME}(?:answer|result)(?:[*_`]* ?(?:is\b ?:?|[:=])|[*_`]*$)[*_` ]*", re.IGNORECASE)
HEADING = re.compile(r"(?:step|part|case|problem|final|conclusion|solution)\b|\d+[.)] ", re.IGNORECASE)
KEY = re.compile(r'"(?:final_)?answer"\s*:\s*("(?:[^"\\\n]|\\.)*"|[^,}\n]+)')
PHRASE = re.compile(
    r"\b(?:the|my|our|your) (?:(?:final|correct|right|best) )?(?:answer|result|option|choice)"
    r"(?: (?:to|for|in|of) [^.:;\n]{1,60}?)?"
    r"(?: {1,3}(?:is|would be|should be|will be)(?: therefore| thus| simply)?| ?[:=]) ?:?|"
    r"\banswer(?: {1,3}is| ?:) ?:?",
    re.IGNORECASE,
)
DOUBT = re.compile(
    r"\b(?:if|whether|sure|unsure|doubt|unless|know|what|not think|n't think|verify|check|confirm|test|interpret)"
    r"(?:ing)?(?: that| what)? *$",
    re.IGNORECASE,
)
NO_VALUE = re.compile(
    r"[ *]*(?:not|un(?:known|clear|certain|defined)|known|correct|incorrect|right|wrong|in|as|below|above|given|found|"
    r"obtained|to|determined|calculated|provided|based|expected)\b(?! ?[=:])",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"(?<![A-Z]\.)(?<!\b[A-Z])[.;!](?= |$)|, (?=[a-z]{2})")
