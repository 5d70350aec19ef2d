"""Draws a trace as a tree, on a terminal or as plain text. One line a node: what it says, what it was judged."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from reason_engine.runtime.trace import Node, Trace

if TYPE_CHECKING:
    from rich.tree import Tree

WIDTH = 88
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def tree_of(trace: Trace, *, most: int = 200, newest: bool = False) -> Tree:
    """The trace as a rich tree of at most `most` nodes; `newest`: those opened last, for a search that still runs.

    Siblings with the same text and were not judged are one line with their number.
    """
    from rich.text import Text
    from rich.tree import Tree

    if not trace.nodes:
        return Tree(Text("…"))
    same, times = _equal_siblings(trace)
    nodes = [node for node in trace.nodes if same[node.id] == node.id]
    kept = nodes[-most:] if newest else nodes[:most]
    shown = _with_parents(trace, {node.id for node in kept})
    best = _best(trace)
    drawn: dict[int, Tree] = {}
    for node in nodes:
        if node.id not in shown:
            continue
        text = _label(node, trace) + (f"   ×{times[node.id]}" if times[node.id] > 1 else "")
        label = Text(printable(text), style=_style(node, best), no_wrap=True, overflow="ellipsis")
        parent = drawn.get(node.parent) if node.parent is not None else None
        drawn[node.id] = parent.add(label) if parent else Tree(label, guide_style="dim")
    root = drawn[trace.nodes[0].id]
    if hidden := len(nodes) - len(shown):
        root.add(Text(f"… and {hidden} more nodes", style="dim"))
    return root


def printable(text: str) -> str:
    """Without control characters, so that a model's text cannot steer the terminal. New lines and tabs stay."""
    return _CONTROL.sub("�", text)


def draw(trace: Trace, *, most: int = 200) -> str:
    """The tree as plain text."""
    from rich.console import Console

    console = Console(width=WIDTH + 32, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(tree_of(trace, most=most))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _equal_siblings(trace: Trace) -> tuple[dict[int, int], Counter[int]]:
    """(node -> the node that stands for it, node -> how many it stands for)."""
    parents = {node.parent for node in trace.nodes}
    first: dict[tuple[int | None, str, str | None], int] = {}
    same: dict[int, int] = {}
    for node in trace.nodes:
        stands_for = node.id
        if node.role == "path" and not node.scores and node.id not in parents and node.text:
            stands_for = first.setdefault((node.parent, node.text, node.finish_reason), node.id)
        same[node.id] = stands_for
    return same, Counter(same.values())


def _with_parents(trace: Trace, kept: set[int]) -> set[int]:
    parents = {node.id: node.parent for node in trace.nodes}
    shown: set[int] = {trace.nodes[0].id} if trace.nodes else set()
    for node in kept:
        at: int | None = node
        while at is not None and at not in shown:
            shown.add(at)
            at = parents[at]
    return shown


def _best(trace: Trace) -> int | None:
    """The path proposed last."""
    proposed = (node.id for node in reversed(trace.nodes) if node.proposed is not None and node.role == "path")
    return next(proposed, None)


def _label(node: Node, trace: Trace) -> str:
    text = " | ".join(line.strip() for line in node.text.splitlines() if line.strip())
    if node.role == "span":
        text = node.name
        if node.parent is None and trace.meta.get("answer"):
            text = f"{text}: {trace.meta['answer']}"
    if len(text) > WIDTH:
        text = text[: WIDTH // 2 - 2] + " … " + text[-(WIDTH // 2) :]
    judged = "  ".join(f"{score['by'] or 'value'} {score['value']:.2f}" for score in node.scores)
    ending = "" if node.finish_reason in (None, "stop") else f"({node.finish_reason})"
    notes = ", ".join(filter(None, (_note(key, value) for key, value in node.notes.items())))
    return "   ".join(part for part in (text or "…", judged, ending, notes) if part)


def _note(key: str, value: object) -> str:
    """What a strategy noted, where it fits into a line; votes as `answer ×count`."""
    if key == "votes" and isinstance(value, list):
        return ", ".join(f"{answer} ×{count}" for answer, count in value)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, float):
        return f"{key} {value:.2f}"
    return f"{key} {value}" if isinstance(value, int | str) and len(str(value)) <= 40 else ""


def _style(node: Node, best: int | None) -> str:
    if node.id == best:
        return "bold green"
    if node.role == "span":
        return "bold"
    return "" if node.finish_reason in ("stop", None) else "dim"
