"""The tree of a Monte Carlo tree search, as values and pure functions: no sampling, no scoring.

Kocsis and Szepesvari 2006, "Bandit based Monte-Carlo Planning", section 2.3 (UCB1); Rosin 2011, "Multi-armed bandits
with episode context" (PUCT, in the form that Silver et al. 2017 use); Chaslot, Winands and van den Herik 2008,
"Parallel Monte-Carlo Tree Search", section 3.3 (virtual loss).
With W the sum of the values of n visits, v virtual losses, N = n + v, p the parent, P the prior:

    Q = W / N          UCB1 = Q + c sqrt(ln N_p / N)          PUCT = Q + c P sqrt(N_p) / (1 + N)

A virtual loss counts as a visit of value 0 along the whole branch, until the simulation that made it is over.
Progressive widening, Couetoux et al. 2011, "Continuous upper confidence trees": a node may be expanded again once its
visits to the power of `widening` exceed the expansions it had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf, log, sqrt

from reason_engine.strategies.search.tree import Thought

Score = Callable[["Node"], float]


@dataclass(eq=False)
class Node:
    """A state in the tree. `closed`: nothing may follow it (it ended, or is as deep as allowed)."""

    thought: Thought
    parent: Node | None = None
    prior: float = 1.0
    closed: bool = False
    visits: int = 0
    total: float = 0.0
    losses: int = 0
    expansions: int = 0
    children: list[Node] = field(default_factory=list["Node"])

    @property
    def count(self) -> int:
        """Visits, those that were only supposed included."""
        return self.visits + self.losses

    @property
    def mean(self) -> float:
        """Q: the mean value of its visits; a virtual loss is worth nothing."""
        return self.total / self.count if self.count else 0.0

    def add(self, thought: Thought, *, prior: float, closed: bool) -> Node:
        """A new child. Its own evaluation is its first visit."""
        child = Node(thought, self, prior, closed, visits=1, total=thought.value)
        self.children.append(child)
        return child


def ucb1(node: Node, c: float) -> float:
    """The upper confidence bound of a child; infinite where it was never visited."""
    if not node.count:
        return inf
    above = node.parent.count if node.parent else node.count
    return node.mean + c * sqrt(log(max(1, above)) / node.count)


def puct(node: Node, c: float) -> float:
    """The bound that follows the prior."""
    above = node.parent.count if node.parent else node.count
    return node.mean + c * node.prior * sqrt(above) / (1 + node.count)


def priors(thoughts: Sequence[Thought]) -> list[float]:
    """P over siblings: their steps' likelihoods, normalised; equal where nothing is known."""
    total = sum(thought.likelihood for thought in thoughts)
    return [thought.likelihood / total if total else 1 / len(thoughts) for thought in thoughts]


def select_branch(root: Node, score: Score, widening: float) -> list[Node]:
    """From the root to the node to expand next: at each node the child of highest score, ties to the first."""
    branch = [root]
    while not _expands(branch[-1], widening):
        branch.append(max((child for child in branch[-1].children if not child.closed), key=score))
    return branch


def add_virtual_loss(branch: Sequence[Node]) -> None:
    """Virtual loss: until its value is known, the branch counts as visited and lost, so that others go elsewhere."""
    for node in branch:
        node.losses += 1


def remove_virtual_loss(branch: Sequence[Node]) -> None:
    """Take the virtual loss of `add_virtual_loss` back."""
    for node in branch:
        node.losses -= 1


def backup(branch: Sequence[Node], value: float) -> None:
    """A simulation's value, to every node on its branch."""
    for node in branch:
        node.visits += 1
        node.total += value


def _expands(node: Node, widening: float) -> bool:
    open_children = any(not child.closed for child in node.children)
    return not open_children or (widening > 0 and node.visits**widening >= node.expansions + 1)
