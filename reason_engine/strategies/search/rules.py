"""What the checker of the question's task knows of a search, where there is one: it drops illegal lines and tells
whether an answer is right; it never proposes, values or looks ahead."""

from __future__ import annotations

from collections.abc import Sequence

from reason_engine.contracts import Checker
from reason_engine.strategies.search.tree import Thought


class Rules:
    """Of one task; without a checker everything is legal and nothing known."""

    def __init__(self, checker: Checker | None) -> None:
        self._checker = checker

    @property
    def known(self) -> bool:
        """Whether a right answer can be told from a wrong one."""
        return self._checker is not None

    def legal(self, thoughts: Sequence[Thought]) -> list[Thought]:
        """Those that the checker allows."""
        return [thought for thought in thoughts if self._checker is None or self._allowed(self._checker, thought)]

    def at_goal(self, thought: Thought) -> bool:
        """Whether these steps have reached the goal."""
        return self._checker is not None and not thought.done and self._checker.outcome(thought.steps) is True

    def verdict(self, thought: Thought) -> bool | None:
        """What is known of a thought: whether its answer is right, or that its steps are at the goal."""
        if self._checker is None or not thought.done:
            return True if self.at_goal(thought) else None
        answer = thought.path.answer if thought.path else None
        return answer is not None and self._checker.solved(answer)

    def solved(self, done: Sequence[Thought]) -> bool:
        """Whether one of these answers is known to be right."""
        return any(self.verdict(thought) is True for thought in done)

    def state(self, steps: tuple[str, ...]) -> str | None:
        """What the state after these steps is called; None where only its text says."""
        return self._checker.state(steps) if self._checker else None

    def _allowed(self, checker: Checker, thought: Thought) -> bool:
        if thought.done:
            return thought.path is not None and thought.path.answer is not None
        return checker.step_ok(thought.steps) and checker.outcome(thought.steps) is not False
