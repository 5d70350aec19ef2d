"""The states of a search and what is kept of them, as values and pure functions: no sampling, no scoring.

Tree of Thoughts, Yao et al. 2023, arXiv:2305.10601, algorithms 1 (breadth first) and 2 (depth first).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reason_engine.types import Answer, Path


@dataclass(frozen=True, slots=True)
class Thought:
    """A state of the search: the steps so far. `text` is the model's turn up to here, `key` names the state (equal
    keys are one state), `path` lets an engine continue on its tokens, `done`: it ended with an answer; `likelihood` is
    the geometric mean probability of the last step's tokens, `draws` how many samples led here."""

    steps: tuple[str, ...] = ()
    text: str = ""
    key: str = ""
    value: float = 0.0
    path: Path | None = None
    done: bool = False
    likelihood: float = 0.0
    draws: int = 1

    @property
    def depth(self) -> int:
        return len(self.steps)

    @property
    def answer(self) -> Answer:
        """A finished thought as an answer, as sure as its value."""
        return Answer(self.path, self.path.answer if self.path else None, self.value)


def merge(thoughts: Sequence[Thought]) -> list[Thought]:
    """One thought a state: the most certain path to it stays, in the order of first appearance."""
    best, drawn = dict[tuple[str, bool], Thought](), dict[tuple[str, bool], int]()
    for thought in thoughts:
        key = (thought.key, thought.done)
        drawn[key] = drawn.get(key, 0) + thought.draws
        if key not in best or _certainty(thought) > _certainty(best[key]):
            best[key] = thought
    return [replace(thought, draws=drawn[key]) for key, thought in best.items()]


def keep_best(thoughts: Sequence[Thought], breadth: int) -> list[Thought]:
    """S_t of algorithm 1: the `breadth` thoughts of highest value; ties keep their order."""
    return sorted(thoughts, key=lambda thought: -thought.value)[:breadth]


def push(stack: Sequence[Thought], children: Sequence[Thought], threshold: float) -> list[Thought]:
    """Algorithm 2: children above the threshold go on top of the stack, the most promising last, so that it is
    visited first and the search comes back to its siblings when its subtree is exhausted."""
    promising = [child for child in children if child.value > threshold]
    return [*stack, *sorted(promising, key=lambda child: child.value)]


def unseen(thoughts: Sequence[Thought], seen: set[str]) -> list[Thought]:
    """Thoughts whose state was not visited before."""
    return [thought for thought in thoughts if thought.done or thought.key not in seen]


def elsewhere(stack: Sequence[Thought], ended: Sequence[Thought]) -> list[Thought]:
    """The stack with the most promising state below another first step than those that ended on top, so that several
    answers do not share all their steps; as it is where there is none."""
    begun = {end.steps[0] for end in ended if end.steps}
    others = [place for place, thought in enumerate(stack) if thought.steps and thought.steps[0] not in begun]
    if not others:
        return list(stack)
    chosen = max(others, key=lambda place: stack[place].value)
    return [*stack[:chosen], *stack[chosen + 1 :], stack[chosen]]


def apart(states: Sequence[Thought], n: int) -> list[Thought]:
    """Up to n states, the most promising first, no second one below the same first step while others are left."""
    ranked = sorted(states, key=lambda thought: (-thought.value, -thought.depth))
    seen, first, rest = set[str](), list[Thought](), list[Thought]()
    for thought in ranked:
        begin = thought.steps[0] if thought.steps else ""
        (rest if begin in seen else first).append(thought)
        seen.add(begin)
    return [*first, *rest][:n]


def most_promising(visited: Mapping[Thought, int]) -> Thought:
    """Where to sample again when the stack is empty: the highest value per visit; ties go to the earlier thought."""
    return max(visited, key=lambda thought: thought.value / visited[thought])


def _certainty(thought: Thought) -> float:
    return thought.path.mean_logprob if thought.path else float("-inf")
