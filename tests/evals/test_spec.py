from __future__ import annotations

import pytest

from reason_engine.errors import RequestError, SetupError
from reason_engine.evals import tasks
from reason_engine.evals.spec import Spec, build, parse_specs
from reason_engine.strategies import strategies


@pytest.mark.parametrize(
    ("texts", "specs"),
    [
        (["direct"], [Spec("direct")]),
        (["direct, best-of-n"], [Spec("direct"), Spec("best-of-n")]),
        (
            ["self-consistency:n=16,adaptive=true,direct", "best-of-n:n=4,verifier=countdown"],
            [
                Spec("self-consistency", {"n": 16, "adaptive": True}),
                Spec("direct"),
                Spec("best-of-n", {"n": 4, "verifier": "countdown"}),
            ],
        ),
        (
            ['{"strategy": "best-of-n", "verifier": {"name": "exact", "params": {}}},direct'],
            [Spec("best-of-n", {"verifier": {"name": "exact", "params": {}}}), Spec("direct")],
        ),
        (["chain-of-thought:temperature=0.7"], [Spec("chain-of-thought", {"temperature": 0.7})]),
    ],
)
def test_parse(texts: list[str], specs: list[Spec]) -> None:
    assert parse_specs(texts, "strategy") == specs


def test_a_label_reads_back_as_the_spec() -> None:
    spec = Spec("self-consistency", {"n": 16, "adaptive": True, "verifier": "exact"})
    assert spec.label == "self-consistency:n=16,adaptive=true,verifier=exact"
    assert parse_specs([spec.label], "strategy") == [spec]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty name"),
        ("direct,,direct", "empty name"),
        ("direct,direct", "given twice"),
        ("a:n=1,n=2", "n is given twice"),
        ("a:n", "key=value"),
        ("a:=1", "key=value"),
        ("a:", "key=value"),
        ('{"strategy": 1}', "needs the key"),
        ("{strategy}", "not JSON"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        parse_specs([text], "strategy")


def test_nothing_named() -> None:
    with pytest.raises(SetupError, match="no strategy"):
        parse_specs([], "strategy")


def test_build_gives_the_model() -> None:
    assert build(strategies, Spec("self-consistency", {"n": 4})).title == "self-consistency"
    assert build(tasks, Spec("word-problems", {"steps": "3-5", "digits": 2})) == build(
        tasks, Spec("word-problems", {"steps": [3, 5], "digits": "2"})
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Spec("self-consistency", {"m": 4}), "no key 'm'"),
        (Spec("self-consistency", {"adaptiv": True}), "did you mean 'adaptive'"),
        (Spec("self-consistency", {"n": 0}), "n: .*greater than or equal to 1"),
        (Spec("direct", {"temperature": "hot"}), "temperature"),
    ],
)
def test_bad_strategy_keys_are_named(spec: Spec, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        build(strategies, spec)


@pytest.mark.parametrize("value", ["5-3", "x", "0-3", "1-2-3", -1, [1], [1, "x"], {"a": 1}, None, 1.5])
def test_bad_ranges_are_named(value: object) -> None:
    with pytest.raises(SetupError, match="steps"):
        build(tasks, Spec("word-problems", {"steps": value}))


def test_unknown_names() -> None:
    with pytest.raises(RequestError, match="no strategy named 'dirct'"):
        build(strategies, Spec("dirct"))
