"""`reason solve`: in this process and through a server, the same answer in the same terms."""

from __future__ import annotations

import io
import json
import sys

import pytest

QUESTION = "What is 3 + 4?"


def test_prints_the_answer_and_what_it_cost(reason) -> None:
    ran = reason("solve", QUESTION, "--engine", "scripted")
    assert (ran.code, ran.out) == (0, f"Answer: {QUESTION}\n")
    assert "direct" in ran.err and "7 tokens" in ran.err


def test_reads_standard_input(reason, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUESTION}\n"))
    assert reason("solve", "-", "--engine", "scripted").out == f"Answer: {QUESTION}\n"


def test_json_has_the_objects_of_the_api(reason) -> None:
    ran = reason(
        "solve", "Say: seven", "--engine", "scripted", "-s", "self-consistency", "--set", "n=3", "--json", "--trace"
    )
    found = json.loads(ran.out)
    assert set(found) == {"content", "reasoning", "reason", "usage", "trace"}
    assert found["reason"]["strategy"] == "self-consistency"
    assert found["reason"]["votes"][0]["count"] == 3
    stages = found["reason"]["usage_by_stage"].values()
    assert found["usage"]["completion_tokens"] == sum(stage["completion"] for stage in stages)
    assert found["trace"]["nodes"][0]["name"] == "self-consistency"


def test_the_budget_reaches_the_run(reason) -> None:
    words = ("--engine", "scripted", "-s", "self-consistency", "--set", "n=8", "--json")
    found = json.loads(reason("solve", QUESTION, *words, "--tokens", "20").out)
    assert found["usage"]["completion_tokens"] <= 20
    assert found["reason"]["stopped"] == "budget-tokens"
    found = json.loads(reason("solve", QUESTION, *words, "--samples", "2").out)
    assert found["reason"]["samples"] == 2


def test_trace_draws_the_tree(reason) -> None:
    ran = reason("solve", QUESTION, "--engine", "scripted", "-s", "self-consistency", "--set", "n=3", "--trace")
    tree, _, answer = ran.out.partition("\n\n")
    assert tree.startswith("self-consistency")
    assert "×3" in tree
    assert answer.startswith("Answer: ")


def test_a_server_gives_the_same(reason, server) -> None:
    words = ("solve", QUESTION, "-s", "self-consistency", "--set", "n=3", "--seed", "5", "--json", "--trace")
    here = json.loads(reason(*words, "--engine", "scripted").out)
    there = json.loads(reason(*words, "--url", server.url).out)
    for key in ("content", "reasoning", "usage"):
        assert here[key] == there[key]
    varies = {"seconds", "trace"}
    assert {k: v for k, v in here["reason"].items() if k not in varies} == {
        k: v for k, v in there["reason"].items() if k not in varies
    }
    names = [[node["name"] for node in found["trace"]["nodes"]] for found in (here, there)]
    assert names[0] == names[1]


def test_what_the_server_refuses_exits_2(reason, server) -> None:
    ran = reason("solve", QUESTION, "-s", "self-consistency", "--set", "n=999", "--url", server.url)
    assert ran.code == 2 and "reasoning.n" in ran.err


def test_no_server_is_one_line(reason) -> None:
    ran = reason("solve", QUESTION, "--url", "http://127.0.0.1:1")
    assert ran.code == 1
    assert ran.err == "reason: EngineDead: no server answers at http://127.0.0.1:1/v1\n"
