"""A scripted chat model without a profile: paragraphs, a box at the end, right for most seeds; and a clock that its
tokens move."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from reason_engine.engines.scripted import Scripted
from reason_engine.types import GenerateRequest, Problem

QUESTION = "Ann has 3 apples, buys 4 more and eats 2 of them. How many apples are left?"
ASKED = Problem(QUESTION)


def solution(kind: int, right: bool) -> list[str]:
    """The paragraphs of one way to solve it; ways of different kinds begin differently."""
    total, left = (7, 5) if right else (8, 6)
    return [
        f"To find the answer in way {kind} we go step by step.",
        f"First we add what she buys: 3 + 4 = {total} apples.",
        f"Then we take away what she eats: {total} - 2 = {left} apples.",
        f"The final answer is \\boxed{{{left}}}.",
    ]


def chat(prompt: str, seed: int, index: int) -> str:
    """Goes on from where the assistant's turn stands; four of five ways are right."""
    turn = prompt.rpartition("<assistant>\n")[2]
    for kind in range(10):
        whole = "\n\n".join(solution(kind, kind % 5 != 4))
        if turn and whole.startswith(turn):
            return whole[len(turn) :]
    return "\n\n".join(solution(seed % 10, seed % 5 != 4)) if not turn else ""


class Clock:
    """The time of budgets: every token of a request moves it by `each` seconds a row."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, each: float) -> None:
        self.now, self.each = 1000.0, each
        monkeypatch.setattr("reason_engine.runtime.budget.time", SimpleNamespace(monotonic=lambda: self.now))

    async def gate(self, request: GenerateRequest, index: int, position: int) -> None:
        self.now += self.each
        await asyncio.sleep(0)


class StepClock(Clock):
    """Every step of a request moves it by `each` seconds, and by `row` more for each of its rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, each: float, row: float) -> None:
        super().__init__(monkeypatch, each)
        self.row, self._steps = row, dict[str, int]()

    async def gate(self, request: GenerateRequest, index: int, position: int) -> None:
        first = position >= self._steps.get(request.id, 0)
        self._steps[request.id] = max(position + 1, self._steps.get(request.id, 0))
        self.now += self.row + first * self.each
        await asyncio.sleep(0)


def chatter(clock: Clock | None = None) -> Scripted:
    """A fresh engine that chats; its values tell right from wrong."""

    def choose(prompt: str, options: tuple[str, ...]) -> list[float]:
        wrong = "= 8" in prompt or "banana" in prompt or "2 + 2 = 5" in prompt
        return [0.1, 0.9] if wrong else [0.8, 0.2]

    return Scripted(chat, choose=choose, gate=clock.gate if clock else None)
