"""`critique`: the model writes a critique of an answer first, then its verdict is read from probabilities.

    s = mean over critiques c of P(Yes | solution, c, opening) / (P(Yes | …) + P(No | …))

Zhao et al. 2025, arXiv:2504.00891, section 3 (GenPRM); Khalifa et al. 2025, arXiv:2504.16828, section 3 (ThinkPRM). The
critique ends by itself, at its limit, or where it begins its verdict; the verdict's opening is put after it and one
forward tells the probabilities of both words. `style` is the wording of a family of trained critics; any model judges
by the general one. A critique costs hundreds of times a judge's one forward: it is for whole answers, never for steps.

Departures: GenPRM judges one paragraph a turn, here the whole solution is one paragraph, and runs code, which is left
out; its system prompt stands at the head of the user's turn. On an engine without probabilities the critique ends by
itself, and the verdict is what it wrote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from reason_engine.contracts import Call, Site
from reason_engine.profile import fill
from reason_engine.types import Draw, Path, Problem, Score
from reason_engine.verifiers import verifiers
from reason_engine.verifiers.judge import read, solution, together

THINK_START, THINK_END = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Style:
    """`begins`: the critique's first words. `ends`: where it is stopped, since its verdict comes next. `opening`: what
    is put before the verdict."""

    prompt: str
    begins: str
    ends: tuple[str, ...]
    opening: str


@verifiers.register("critique")
class Critique(BaseModel):
    """In the general words unless the request names a style or its own; `{problem}` and `{solution}` in them are
    literal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    style: Literal["general", "think-prm", "gen-prm"] = Field("general", description="whose wording the critic knows")
    critiques: int = Field(1, ge=1, le=16, description="critiques of an answer, whose verdicts are averaged")
    critique_tokens: int = Field(1024, ge=16, le=16_384, description="most tokens of a critique")
    temperature: float | None = Field(None, ge=0, le=2, description="of the critique; none: the request's")
    prompt: str | None = Field(None, max_length=20_000, description="what the critic is asked, in place of the style's")
    options: tuple[str, str] = Field(("Yes", "No"), description="the good verdict, then the bad")

    _reads: bool = PrivateAttr(True)

    def bind(self, site: Site) -> Critique:
        """The verdict is read where the engine continues a path and tells probabilities of words."""
        bound = self.model_copy()
        bound._reads = site.caps.choose and site.caps.continuation
        return bound

    async def score(self, problem: Problem, paths: Sequence[Path], call: Call) -> list[Score]:
        """In [0, 1]. Not a number for a path whose critique the budget refused, or which wrote no verdict."""
        values = await together([self._judge(problem, path, call) for path in paths])
        return [Score(value, "critique", self.style) for value in values]

    async def _judge(self, problem: Problem, path: Path, call: Call) -> float:
        style = STYLES[self.style]
        asked = fill(self.prompt or style.prompt, {"problem": problem.question, "solution": solution(path)})
        stop = style.ends if self._reads else ()
        draw = Draw(self.critiques, self.critique_tokens, self.temperature, stop=stop, prefill=style.begins)
        written = await call.sample(asked, draw)
        if self._reads:
            read_off = await together([self._verdict(asked, style, one, call) for one in written])
            known = [value for value in read_off if not math.isnan(value)]
        else:
            said = (read(one.text, self.options) for one in written)
            known = [value for value in said if value is not None]
        return sum(known) / len(known) if known else math.nan

    async def _verdict(self, asked: str, style: Style, critique: Path, call: Call) -> float:
        opening = closing(critique) + style.opening
        ended = next((end for end in style.ends if critique.text.endswith(end)), "")
        if ended.strip() and style.opening.lstrip().startswith(ended.strip()):
            opening = style.opening.lstrip().removeprefix(ended.strip())  # the critique has begun its verdict itself
        return (await call.choice(asked, self.options, prefill=opening, after=critique)).probabilities[0]


def closing(critique: Path) -> str:
    """What ends a thought that the critique has left open; nothing where none is open."""
    whole = critique.prompt + critique.text
    return f"\n{THINK_END}\n" if whole.rfind(THINK_START) > whole.rfind(THINK_END) else ""


STYLES: Mapping[str, Style] = {
    "general": Style(
        "Here is a problem and a proposed solution.\n\nProblem:\n{problem}\n\nProposed solution:\n{solution}\n\nGo "
        "through the solution step by step and say where it errs, if it does. Then judge its answer on a last line, as "
        "Judgement: $\\boxed{Yes}$ if it is correct or Judgement: $\\boxed{No}$ if it is not.",
        "",
        ("Judgement:",),
        "\n\nJudgement: $\\boxed{",
    ),
    "think-prm": Style(
        "You are given a math problem and a proposed step-by-step solution:\n\n[Math Problem]\n\n{problem}\n\n"
        "[Solution]\n\n{solution}\n\nReview and critique each step in the proposed solution to determine whether each "
        "step is correct. If the solution is incomplete, only verify the provided steps.",
        "\nLet's verify step by step:",
        ("Is the solution correct?",),
        "\nIs the solution correct? ",
    ),
    "gen-prm": Style(
        "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step.\n\n"
        "Question: {problem}\n\n{solution}",
        "<analyze>\nLet's analyze the Paragraph 1 step by step: ",
        ("</analyze>",),
        "\n<output>\n**Judgement**: $\\boxed{",
    ),
}
"""The last two are the words that those models were trained with."""
