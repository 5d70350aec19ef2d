"""How far sources support a sentence by its wording and figures; no judgement of what is true."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from reason_engine.contracts import Call
from reason_engine.errors import first_error
from reason_engine.types import Passage, Problem
from reason_engine.verifiers.process_rules.equations import equations
from reason_engine.verifiers.process_rules.numbers import numbers
from reason_engine.verifiers.process_rules.steps import Step

LOOKUPS = 32
"""Steps of one call that are looked up in the operator's documents."""


def support(text: str, passages: Sequence[Passage]) -> float:
    """How far these passages support a sentence, from 0 to 1; 1 for a sentence without any word that counts."""
    claim = _CITED.sub(" ", text)
    words, figures = _content_words(claim), set(numbers(claim))
    if not words and not figures:
        return 1.0
    best = 0.0
    for passage in passages:
        there = _content_words(passage.text)
        share = len(words & there) / len(words) if words else 1.0
        best = max(best, share * 0.5 ** len(figures - set(numbers(passage.text))))
    return best


async def look_up(problem: Problem, split: Sequence[Sequence[Step]], call: Call) -> dict[str, Sequence[Passage]]:
    """For each step of prose the passages that may support it: the question's sources and what is found for it."""
    prose = {step.text: None for steps in split for step in steps if not equations(step.text)}
    wanted = list(prose)[:LOOKUPS]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {text: group.create_task(call.retrieve(text[:500])) for text in wanted}
    except BaseExceptionGroup as errors:
        raise first_error(errors) from None
    found = {text: (*problem.sources, *task.result()) for text, task in tasks.items()}
    return {text: passages for text, passages in found.items() if passages}


def _content_words(text: str) -> set[str]:
    """Lower-cased, without endings of plurals and tenses and without the most common words."""
    found = (word for word in _WORD.findall(text.lower()[:10_000]) if word not in _COMMON)
    return {word.removesuffix("'s").removesuffix("es").removesuffix("s").removesuffix("ed") for word in found}


_WORD = re.compile(r"[^\W\d_][\w'-]+")
_CITED = re.compile(r"\[\d{1,3}\]|^\s*[Aa]nswer:")
_COMMON_WORDS = (
    "the an and or of to in on at by for from with as is are was were be been it its this that these those he she they "
    "his her their has have had do does did not so then there here which who what when how much many more now"
)
_COMMON = frozenset(_COMMON_WORDS.split())
