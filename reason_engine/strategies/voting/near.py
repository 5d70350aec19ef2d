"""Inputs near those of examples, on which programs that agree on the examples may differ.

One value changes, by its type, as EvalPlus makes its tests (Liu et al. 2023, arXiv:2305.01210, section 2.1).
Departures: each change once and in a fixed order, instead of drawn ones; no contracts tell whether an input is meant,
so that whoever compares leaves out inputs on which most programs fail.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, cast

from reason_engine.strategies.voting.examples import LONGEST, Example

NEAR, ROUNDS = 12, 3
"""Inputs that are made, at most; changes that lie between one of them and its example."""


def near(given: list[Example]) -> list[Example]:
    """Inputs near those of calls, without outputs: a change of each in turn, then changes of the changed ones."""
    seen, made = {example.given for example in given}, list[str]()
    layer = [example.given for example in given if not example.whole]
    for _ in range(ROUNDS):
        rounds = [_changed_calls(ast.literal_eval(one)) for one in layer]
        layer = list[str]()
        for one in itertools.chain.from_iterable(itertools.zip_longest(*rounds)):
            if len(made) == NEAR:
                break
            if one is not None and one not in seen and len(one) <= LONGEST:
                seen.add(one)
                made.append(one)
                layer.append(one)
    return [Example(one) for one in made]


def _changed_calls(arguments: list[Any]) -> Iterator[str]:
    """The arguments with one of them changed; every argument's first change comes before any second one."""
    changes = [[(place, value) for value in _changed(argument)] for place, argument in enumerate(arguments)]
    for change in itertools.chain.from_iterable(itertools.zip_longest(*changes)):
        if change is not None:
            yield repr([*arguments[: change[0]], change[1], *arguments[change[0] + 1 :]])


def _changed(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, 2 * value, -value, 0]
    if isinstance(value, float):
        return [value + 1, value / 2, -value, 0.0]
    if isinstance(value, str):
        return [value[::-1], value[1:], value + value, value.swapcase(), ""]
    if isinstance(value, list | tuple):
        items = list(cast("Sequence[Any]", value))
        inner = [[*items[:1], one, *items[2:]] for one in _changed(items[1])[:2]] if len(items) > 1 else []
        changed: list[list[Any]] = [items[::-1], items[1:], *inner, items + items, []]
        return [tuple(one) if isinstance(value, tuple) else one for one in changed]
    if isinstance(value, dict):
        pairs = list(cast("dict[Any, Any]", value).items())
        return [dict(pairs[1:]), dict(pairs[::-1]), {}]
    if isinstance(value, set | frozenset):
        members = sorted(cast("set[Any]", value), key=repr)
        return [set(members[1:]), set[Any]()]
    return []
