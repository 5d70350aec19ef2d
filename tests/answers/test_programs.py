"""Programs and JSON in answers."""

from __future__ import annotations

import pytest

from reason_engine.answers import AnswerSpec, canonical_json, find, read

HELPER = "```python\nimport math\n\n@cache\ndef g(x): return math.pi\n\nspare = 1\n```"
MAIN = "```python\ndef f(x):\n    return g(x)\n```"
USE = "```python\nprint(f(3))\nprint(f(4))\nprint(f(5))\nprint(f(6))\nprint(f(7))\n```"


def program(text: str, entry_point: str | None = "f", *, cut: bool = False) -> str | None:
    found = read(text, AnswerSpec("code", entry_point=entry_point), cut=cut)
    return found and found.value


def test_helpers_of_earlier_blocks_come_first() -> None:
    wanted = "import math\n@cache\ndef g(x): return math.pi\ndef f(x):\n    return g(x)"
    assert program(f"First\n{HELPER}\nthen\n{MAIN}\nand\n{USE}") == wanted


def test_the_entry_point_decides_else_the_longest() -> None:
    assert program(f"{MAIN}\n{USE}") == "def f(x):\n    return g(x)"
    assert program(f"{MAIN}\n{USE}", None) == f"{MAIN[10:-4]}\n{USE[10:-4]}"
    assert program("```python\ndef f(): return 1\n```\n```python\ndef f(): return 2\n```") == "def f(): return 2"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("def f(x):\n    return x\n```\nThis works", "def f(x):\n    return x"),
        ("def f(x):\n    return x", "def f(x):\n    return x"),
        ("Sure.\ndef f(x):\n    return x\n\nThat is all, folks!", "def f(x):\n    return x"),
        ("- so:\n  ```python\n  def f(x):\n      return x\n  ```", "def f(x):\n    return x"),
        ("```sql\nSELECT 1\n```\n```output\n1\n```", "SELECT 1"),
        ("I can not do that.", None),
        ("```python\ndef f(x:\n```", None),
        ("```output\n1\n```", None),
    ],
)
def test_what_a_program_is(text: str, wanted: str | None) -> None:
    assert program(text) == wanted


def test_a_program_that_was_cut_is_none() -> None:
    assert program("```python\ndef f(x):\n    return x\n", cut=True) is None
    assert program("```python\ndef f(x):\n    return x\n```\nThis", cut=True) is not None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"b": 1.0, "a": [5e-1]}', '{"a": [0.5], "b": 1}'),
        ('Here: ```json\n{"a": 1}\n``` ok', '{"a": 1}'),
        ('The object is {"a": "}"} and {"b": 2}', '{"a": "}"}'),
        ("[1,2]", "[1, 2]"),
        ("{a: 1}", None),
        ("NaN", None),
        ('{"a": NaN}', None),
        ("[" * 5_000, None),
    ],
)
def test_json(text: str, wanted: str | None) -> None:
    assert find(text, "json") == wanted


def test_canonical_json() -> None:
    assert canonical_json('{"a": 1e0}') == canonical_json('{ "a" : 1 }') == '{"a": 1}'
    assert canonical_json("{") is None
