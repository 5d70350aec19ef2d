"""Equality of two values of a kind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from reason_engine.answers import AnswerKind, Equality


@pytest.fixture
async def equality() -> AsyncIterator[Equality]:
    it = Equality(seconds=60)
    yield it
    await it.close()


@pytest.mark.parametrize(
    ("kind", "a", "b", "same"),
    [
        ("number", "72 clips", "72", True),
        ("number", "$1,234.50", "1234.5", True),
        ("number", "1/3", "0.3333", False),
        ("number", "\\frac{1}{2}", "0.5", True),
        ("choice", "(b)", "B", True),
        ("choice", "B", "C", False),
        ("yes-no", "Yes, it is", "yes", True),
        ("yes-no", "true", "yes", True),
        ("yes-no", "no", "yes", False),
        ("words", "The Eiffel Tower.", "eiffel tower", True),
        ("words", "4 July 1776", "1776-07-04", True),
        ("words", "Paris", "Rome", False),
        ("code", "def f(x):\n    return x  # same\n", 'def f(x):\n    """Itself."""\n    return x', True),
        ("code", "def f(x): return x", "def f(x): return -x", False),
        ("code", "not  code at", "not code at", True),
        ("json", '{"a": 1.0, "b": 2}', '{"b": 2, "a": 1}', True),
        ("json", '{"a": [1, 2]}', '{"a": [2, 1]}', False),
        ("json", '{"a": 0.1, "b": [2e0]}', '{"b": [2], "a": 0.10}', True),
        ("json", '{"a": 1e20}', '{"a": 100000000000000000000}', True),
        ("json", '{"a": 1}', '{"a": "1"}', False),
        ("json", '{"a": 1}', '{"a": true}', False),
        ("json", '{"a": null}', '{"a": false}', False),
        ("json", '{"a": {}}', '{"a": []}', False),
        ("json", "[]", "{}", False),
        ("json", '{"a": 1e999999999}', '{"a": 2e999999999}', False),
        ("json", "[" * 100_000, "[" * 100_000, True),
        ("json", '{"a": NaN}', '{"a": NaN}', True),
        ("tool", '[["f", "{}"], ["g", "{\\"n\\": 1}"]]', '[["g", "{\\"n\\": 1.0}"], ["f", "{}"]]', True),
        ("tool", '[["f", "{}"], ["f", "{}"]]', '[["f", "{}"]]', False),
        ("tool", '[["f", "{}"]]', "a text", False),
        ("tool", "[" * 100_000, "[" * 100_000, True),
        ("expression", "x = 5", "5", True),
        ("expression", "x = -3 or x = 5", "5, -3", True),
        ("expression", "(1, 2)", "(2, 1)", False),
        ("expression", "5\\text{ cm}", "5", True),
        ("free", "a  tale", "a tale", True),
        (None, "The Hague", "the hague", True),
    ],
)
async def test_without_algebra(equality: Equality, kind: AnswerKind | None, a: str, b: str, same: bool) -> None:
    assert await equality.same(a, b, kind) is same
    assert await equality.same(b, a, kind) is same


async def test_expressions_by_algebra_both_ways(equality: Equality) -> None:
    assert await equality.same("2\\sqrt{3}", "\\sqrt{12}", "expression")
    assert await equality.same("(3, \\frac{\\pi}{2})", "(3,\\pi/2)", "expression")
    assert await equality.same("1 < x < 2", "(1,2)", "expression") == await equality.same(
        "(1,2)", "1 < x < 2", "expression"
    )
    assert equality.started == 1


async def test_other_kinds_never_start_the_process(equality: Equality) -> None:
    assert not await equality.same("dear x+1", "read 1+x", "words")
    assert await equality.cluster(["B", "(b)", "C"], "choice") == ["B", "B", "C"]
    assert equality.started == 0


async def test_clusters_by_kind(equality: Equality) -> None:
    assert await equality.cluster(["72 clips", "72.0", "71"], "number") == ["72", "72", "71"]
