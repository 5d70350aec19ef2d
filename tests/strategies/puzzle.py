"""A scripted model that plays Game of 24 by steps, sometimes badly: what the strategy tests run on."""

from __future__ import annotations

from reason_engine.engines.scripted import Scripted
from reason_engine.profile import Ask, Profile, TaskMatch
from reason_engine.types import Problem

QUESTION = "Use the numbers 4 5 6 10 and + - * / to make 24."
RIGHT = ("10 - 4 = 6 (left: 5 6 6)", "5 * 6 = 30 (left: 6 30)", "30 - 6 = 24 (left: 24)",
         "Answer: 5 * (10 - 4) - 6 = 24")  # fmt: skip
LOST = ("10 + 6 = 16 (left: 4 5 16)", "16 - 5 = 11 (left: 4 11)", "11 * 4 = 44 (left: 44)",
        "Answer: (10 + 6 - 5) * 4 = 44")  # fmt: skip
PROFILE = Profile(
    step_end="\n",
    ask=Ask(steps="Think step by step."),
    value_prompt="Can {state}?",
    tasks=(
        TaskMatch(
            task="countdown", match=r"numbers (?P<numbers>[\d ]+) and .* make (?P<target>\d+)", checker="countdown"
        ),
    ),
)
HOPEFUL = {"4 5 6 10 make 24", "5 6 6 make 24", "6 30 make 24"}


def play(prompt: str, seed: int, index: int) -> str:
    """Goes on from the steps in the prompt: the right way, a lost way, or (every fifth seed) an illegal line."""
    turn = prompt.rpartition("<assistant>\n")[2]
    done = [line for line in turn.split("\n") if line]
    if "Think step by step." not in prompt:
        return RIGHT[-1] if seed % 2 else LOST[-1]
    right = done[0] == RIGHT[0] if done else bool(seed % 2)
    way = RIGHT if right else LOST
    if seed % 5 == 4:
        return "10 - 4 = 7 (left: 5 6 7)\nAnswer: 7"
    return "\n".join(way[len(done) :])


def hope(prompt: str, options: tuple[str, ...]) -> list[float]:
    """P(yes) is high for states from which 24 can be reached."""
    yes = 0.9 if any(f"Can {state}?" in prompt for state in HOPEFUL) else 0.1
    return [yes, 1 - yes]


def player() -> Scripted:
    """A fresh engine that plays."""
    return Scripted(play, choose=hope, logprob=lambda prompt, token: -0.1 - (len(token) % 3) / 10)


def problem() -> Problem:
    return Problem(QUESTION)
