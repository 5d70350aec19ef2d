"""`satisfaction`: how likely users are to be content with an answer, fitted to their feedback.

    P(content | question, answer) = sigmoid(w x + b),    x as in `_ngrams`

Logistic regression, fitted by `_satisfaction_fit`. A request names a file only by the operator's name for it
(`satisfaction: {NAME: PATH}` in the settings), never by a path.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from reason_engine.contracts import Call, Site
from reason_engine.errors import CapabilityMissing, RequestError, SetupError, VerifierError
from reason_engine.types import Path, Problem, Score
from reason_engine.verifiers import verifiers
from reason_engine.verifiers._satisfaction_fit import Fitted, fit_file, load

__all__ = ["Satisfaction", "fit_file"]


@verifiers.register("satisfaction")
class Satisfaction(BaseModel):
    """By the operator's name for the fitted file; one that is alone needs none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, max_length=200, description="which fitted file, where there are several")

    _fitted: Fitted | None = PrivateAttr(None)

    def bind(self, site: Site) -> Satisfaction:
        """Raises CapabilityMissing where the operator has no fitted file, RequestError for a name that is none."""
        files = site.powers.satisfaction
        if not files:
            raise CapabilityMissing(
                "the verifier 'satisfaction' needs a file fitted to users' feedback, and this server has none; fit one "
                "with reason_engine.verifiers.satisfaction.fit_file and name it in the setting `satisfaction`",
                param=site.field,
                code="capability_missing",
            )
        name = next(iter(files)) if self.model is None and len(files) == 1 else self.model
        if name is None or name not in files:
            asked = "which file?" if name is None else f"no fitted file named {name!r};"
            raise RequestError(f"{asked} one of: {', '.join(files)}", param=f"{site.field}.params.model")
        bound = self.model_copy()
        try:
            bound._fitted = load(files[name])
        except SetupError as error:
            raise VerifierError(f"verifier satisfaction: {error}") from None
        return bound

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """In (0, 1)."""
        assert self._fitted is not None, "not bound"
        return [
            Score(self._fitted.content(problem.asked, path.text), "satisfaction", self.model or "")
            for path in paths
        ]
