"""The mathematics of Monte Carlo tree search, on hand-made numbers."""

from __future__ import annotations

from math import inf, log, sqrt

import pytest

from reason_engine.strategies.search.tree import Thought
from reason_engine.strategies.search.uct import (
    Node,
    add_virtual_loss,
    backup,
    priors,
    puct,
    remove_virtual_loss,
    select_branch,
    ucb1,
)


def greedy(node: Node) -> float:
    return node.mean


def tree() -> tuple[Node, Node, Node, Node]:
    """A root with two children, the first of which has one."""
    root = Node(Thought(), visits=4, total=2.0)
    left = root.add(Thought(("l",), value=0.5), prior=0.75, closed=False)
    right = root.add(Thought(("r",), value=0.25), prior=0.25, closed=False)
    leaf = left.add(Thought(("l", "l"), value=1.0), prior=1.0, closed=False)
    return root, left, right, leaf


def test_the_evaluation_of_a_new_state_is_its_first_visit() -> None:
    _, left, _, _ = tree()
    assert (left.visits, left.total, left.mean) == (1, 0.5, 0.5)


def test_ucb1_by_hand() -> None:
    root, left, right, _ = tree()
    assert ucb1(left, 2.0) == pytest.approx(0.5 + 2 * sqrt(log(4)))
    backup([root, right], 0.75)
    assert ucb1(right, 1.0) == pytest.approx(1.0 / 2 + sqrt(log(5) / 2))
    assert ucb1(right, 0.0) == 0.5
    assert ucb1(Node(Thought(), root), 1.0) == inf


def test_puct_by_hand() -> None:
    _, left, right, _ = tree()
    assert puct(left, 2.0) == pytest.approx(0.5 + 2 * 0.75 * 2 / 2)
    assert puct(right, 2.0) == pytest.approx(0.25 + 2 * 0.25 * 2 / 2)


def test_priors_are_likelihoods_normalised() -> None:
    assert priors([Thought(likelihood=0.3), Thought(likelihood=0.1)]) == pytest.approx([0.75, 0.25])
    assert priors([Thought(), Thought()]) == [0.5, 0.5]
    assert priors([]) == []


def test_backup_reaches_every_node_on_the_way_and_no_other() -> None:
    root, left, right, leaf = tree()
    backup([root, left, leaf], 0.4)
    assert [(n.visits, n.total) for n in (root, left, right, leaf)] == [
        (5, 2.4), (2, 0.9), (1, 0.25), (2, 1.4)
    ]  # fmt: skip


def test_a_virtual_loss_is_a_visit_of_no_value_until_it_is_taken_back() -> None:
    root, left, right, _ = tree()
    before = [(n.mean, ucb1(n, 1.0), puct(n, 1.0)) for n in (root, left, right)]
    add_virtual_loss([root, left])
    assert (left.mean, left.visits, left.count) == (0.25, 1, 2)
    assert root.mean == pytest.approx(2.0 / 5)
    assert ucb1(left, 1.0) == pytest.approx(0.25 + sqrt(log(5) / 2))
    remove_virtual_loss([root, left])
    assert [(n.mean, ucb1(n, 1.0), puct(n, 1.0)) for n in (root, left, right)] == before


def test_virtual_losses_send_the_next_simulation_elsewhere() -> None:
    root, left, right, leaf = tree()
    first = select_branch(root, greedy, 0.0)
    assert first == [root, left, leaf]
    add_virtual_loss(first)
    add_virtual_loss(first)
    # 0.5 / 3 is less than 0.25
    assert select_branch(root, greedy, 0.0) == [root, right]


def test_ties_go_to_the_first_child() -> None:
    root = Node(Thought(), visits=1)
    first = root.add(Thought(value=0.5), prior=0.5, closed=False)
    root.add(Thought(value=0.5), prior=0.5, closed=False)
    assert select_branch(root, greedy, 0.0) == [root, first]


def test_closed_states_are_not_visited_and_a_state_without_open_ones_is_expanded_again() -> None:
    root, left, right, leaf = tree()
    leaf.closed = True
    assert select_branch(root, greedy, 0.0) == [root, left]
    left.closed = True
    assert select_branch(root, greedy, 0.0) == [root, right]
    right.closed = True
    assert select_branch(root, greedy, 0.0) == [root]


def test_widening_expands_a_state_again_as_its_visits_grow() -> None:
    root, *_ = tree()
    root.expansions = 1
    assert select_branch(root, greedy, 0.5) == [root]  # 4 ** 0.5 reaches the second expansion
    root.expansions = 2
    assert len(select_branch(root, greedy, 0.5)) > 1
    root.expansions = 1
    assert len(select_branch(root, greedy, 0.0)) > 1
