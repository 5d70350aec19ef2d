"""Multiple choice: a word problem with four options; the answer is the letter.

… How many apples does Anna have now?
A) 31
B) 30
C) 20
D) 40
Think step by step.
->
12 + 25 = 37
37 - 7 = 30
B) 30
Answer: B

With `through` the options are gone through in their order up to the one that equals the last result (`A) 31`, `B) 30`,
`Answer: B`): a letter stands before its number, so finding it by the number takes a look back that small models do
not learn.
"""

from __future__ import annotations

import random

from pydantic import BaseModel, ConfigDict, Field

from reason_engine.data import families
from reason_engine.data.formats.examples import STEPS, Example
from reason_engine.recipes.words import WordProblem, word_problem

LETTERS = "ABCD"


@families.register("choice")
class Choice(BaseModel):
    """`rationale`: share answered by steps, the rest gives the letter at once; `through`: option by option."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rationale: float = Field(0.7, ge=0, le=1)
    through: bool = False
    steps: tuple[int, int] = (1, 4)
    digits: tuple[int, int] = (1, 2)

    def example(self, rng: random.Random) -> Example:
        problem = word_problem(rng, rng.randint(*self.steps), rng.randint(*self.digits))
        question, letter = multiple_choice(rng, problem)
        if rng.random() >= self.rationale:
            return Example(question, f"Answer: {letter}", "choice")
        options = question.splitlines()[-len(LETTERS) :]
        place = LETTERS.index(letter)
        seen = options[0 if self.through else place : place + 1]
        lines = [*map(str, problem.lines), *seen, f"Answer: {letter}"]
        return Example(f"{question}\n{STEPS}", "\n".join(lines), "choice")


def multiple_choice(rng: random.Random, problem: WordProblem) -> tuple[str, str]:
    """The problem with four different options, and the letter of the right one."""
    right = problem.answer
    near = {right + d for d in (-10, -2, -1, 1, 2, 10)} | {entry.value for entry in problem.lines}
    wrong = rng.sample(sorted(n for n in near if n != right and n >= 0), 3)
    options = rng.sample([right, *wrong], 4)
    rows = [f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=True)]
    return "\n".join([problem.question, *rows]), LETTERS[options.index(right)]
