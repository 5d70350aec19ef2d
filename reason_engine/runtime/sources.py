"""Puts what the operator's documents say of a question before it, so that every strategy and verifier reads it.

At most half of the context's room goes to sources. Tasks are recognised by the question as it was asked
(`Problem.asked`): a document that happens to pose a task is no task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reason_engine.contracts import Engine, Retriever
from reason_engine.errors import CapabilityMissing
from reason_engine.knowledge.quoting import TOP, fetch, fitting, quoted
from reason_engine.profile import Profile
from reason_engine.types import Passage, Problem


async def informed(
    problem: Problem, knowledge: Retriever | None, engine: Engine, profile: Profile
) -> Problem:
    """The problem with its sources. Raises CapabilityMissing where there are no documents to retrieve from."""
    if knowledge is None:
        raise CapabilityMissing(
            "reasoning.knowledge: there are no documents here; start with --knowledge DIR to retrieve from a folder",
            param="reasoning.knowledge",
            code="capability_missing",
        )
    found = await fetch(knowledge, problem.question, TOP, engine.info.specials)
    used = len(engine.tokenize(engine.render_chat(problem.turns(), tools=problem.tools)))
    room = (engine.info.context - used) // 2
    kept = fitting(found, lambda text: len(engine.tokenize(text)), room)
    question = quoted(problem.question, kept, profile.ask.sources)
    return replace(problem, question=question, sources=kept, bare=problem.question)


def cited(sources: Sequence[Passage]) -> list[dict[str, Any]]:
    """The sources as a trace notes them and as a client reads them, numbered as the prompt numbers them."""
    return [{"n": n, "source": p.source, "text": p.text} for n, p in enumerate(sources, 1)]
