"""A scripted model that solves a word problem by steps, wrongly for some seeds, and a judge of its steps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydantic import BaseModel, ConfigDict

from reason_engine.contracts import Call
from reason_engine.profile import Ask, Profile
from reason_engine.types import Path, Problem, Score
from reason_engine.verifiers import verifiers

QUESTION = "Ann has 3 apples, buys 4 and eats 2. How many are left?"
RIGHT = ("3 + 4 = 7", "7 - 2 = 5", "Answer: 5")
WRONG = ("3 + 4 = 8", "8 - 2 = 6", "Answer: 6")
PROFILE = Profile(step_end="\n", ask=Ask(steps="Think step by step."), verifiers=("countdown", "steps-judge"))


def tell(prompt: str, seed: int, index: int) -> str:
    """Goes on from the steps in the prompt; a first step is wrong for every sample but each third."""
    done = [line for line in prompt.rpartition("<assistant>\n")[2].split("\n") if line]
    right = done[0] == RIGHT[0] if done else index % 3 == 0
    return "\n".join((RIGHT if right else WRONG)[len(done) :])


class StepsJudge(BaseModel):
    """1 for a line of the right way, 0.2 for any other. `crash` names a line that it fails on."""

    model_config = ConfigDict(frozen=True)
    crash: str = ""

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        return [(await self.score_steps(problem, path, call))[-1] for path in paths]

    async def score_steps(self, problem: Problem, path: Path, call: Call) -> list[Score]:
        lines = [line for line in path.text.split("\n") if line.strip()]
        if self.crash and any(self.crash in line for line in lines):
            raise ValueError("cannot read this")
        return [Score(1.0 if line in RIGHT else 0.2) for line in lines]


@pytest.fixture
def steps_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """`steps-judge` is a registered verifier."""
    assert "countdown" in verifiers  # loads the registry
    monkeypatch.setitem(verifiers._found, "steps-judge", StepsJudge)
