"""`exact`: 1 where the answer equals a known reference, else 0. For evaluations and callers who know the answer."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

from reason_engine.answers import Equality
from reason_engine.contracts import Call, Site
from reason_engine.errors import RequestError
from reason_engine.types import Path, Problem, Score
from reason_engine.verifiers import verifiers


@verifiers.register("exact")
class Exact(BaseModel, extra="forbid", frozen=True):
    """Equality of values, not of text: 0.5 is 1/2. A path without an answer scores 0."""

    reference: str | None = Field(None, max_length=10_000, description="the right answer; default: the problem's own")

    def bind(self, site: Site) -> Exact:
        """Raises RequestError where no right answer is known."""
        if self.reference is None and site.problem.reference is None:
            raise _unknown(site.field)
        return self

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """One score a path. Raises RequestError where neither the params nor the problem hold a reference."""
        reference = self.reference if self.reference is not None else problem.reference
        if reference is None:
            raise _unknown("reasoning.verifier")
        equality = Equality()
        try:
            right = [p.answer is not None and await equality.same(p.answer, reference) for p in paths]
        finally:
            await equality.close()
        return [Score(float(good), "exact") for good in right]


def _unknown(field: str) -> RequestError:
    return RequestError("the verifier 'exact' needs the right answer in `reference`", param=f"{field}.params.reference")
