"""What vLLM hands over as chunks: stop reasons, drafts, and both forms of its log-probabilities."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from reason_engine.engines.vllm.outputs import chunk_of
from reason_engine.types import Sampling

EOS = (2,)


def sample(ids: tuple[int, ...], logprobs: Any = None, **more: Any) -> Any:
    fields: dict[str, Any] = {"text": "t", "finish_reason": None, "stop_reason": None, "spec_decode_metrics": None}
    return SimpleNamespace(**fields | {"token_ids": list(ids), "logprobs": logprobs} | more)


def flat(*places: list[tuple[int, float]]) -> Any:
    """The sampled token first, as vLLM has it, then the likeliest."""
    ends = [sum(map(len, places[: at + 1])) for at in range(len(places))]
    entries = [entry for place in places for entry in place]
    return SimpleNamespace(
        start_indices=[0, *ends[:-1]], end_indices=ends, token_ids=[id for id, _ in entries],
        logprobs=[value for _, value in entries],
    )  # fmt: skip


def mapping(*places: list[tuple[int, float]]) -> Any:
    """By token: the sampled one may be among the likeliest."""
    made: list[dict[int, Any]] = []
    for sampled, *likeliest in places:
        ranked = {id: SimpleNamespace(logprob=value, rank=at + 1) for at, (id, value) in enumerate(likeliest)}
        made.append({sampled[0]: SimpleNamespace(logprob=sampled[1], rank=9), **ranked})
    return made


@pytest.mark.parametrize("form", [flat, mapping])
@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_both_forms_of_log_probabilities_say_the_same(form: Any, wanted: int) -> None:
    places = form([(5, -0.5), (5, -0.5), (6, -1.0)], [(7, -2.0), (5, -0.1), (6, -1.0)])
    chunk = chunk_of(sample((5, 7), places), 1, Sampling(logprobs=wanted), EOS, str)
    assert [(p.token_id, p.token, p.logprob) for p in chunk.logprobs] == [(5, "5", -0.5), (7, "7", -2.0)]
    tops = [((5, "5", -0.5), (6, "6", -1.0)), ((5, "5", -0.1), (6, "6", -1.0))]
    assert [p.top for p in chunk.logprobs] == [top[:wanted] for top in tops]


@pytest.mark.parametrize("form", [flat, mapping])
def test_an_abort_without_tokens_has_no_log_probabilities(form: Any) -> None:
    """vLLM's last output of an aborted request repeats those of all its tokens."""
    ended = sample((), form([(5, -0.5), (5, -0.5)]), finish_reason="abort")
    chunk = chunk_of(ended, 0, Sampling(logprobs=1), EOS, str)
    assert (chunk.logprobs, chunk.token_ids, chunk.finish_reason) == ((), (), "abort")


def test_what_nobody_asked_for_is_left_out() -> None:
    assert chunk_of(sample((5,), flat([(5, -0.5)])), 0, Sampling(), EOS, str).logprobs == ()
    assert chunk_of(sample((5,), None), 0, Sampling(logprobs=0), EOS, str).logprobs == ()


def test_the_end_token_is_nobodys_stop_but_the_callers_own() -> None:
    ended = {"finish_reason": "stop", "stop_reason": 2}
    assert chunk_of(sample((2,), **ended), 0, Sampling(), EOS, str).stop_reason is None
    assert chunk_of(sample((2,), **ended), 0, Sampling(stop_token_ids=(2,)), EOS, str).stop_reason == 2
    assert chunk_of(sample((1,), finish_reason="strange"), 0, Sampling(), EOS, str).finish_reason == "error"


def test_drafts_are_counted_once() -> None:
    metrics = SimpleNamespace(histogram=[3, 2, 1], num_draft_tokens=12)
    chunk = chunk_of(sample((1,), spec_decode_metrics=metrics), 0, Sampling(), EOS, str)
    assert (chunk.draft_accepted, chunk.draft_rejected) == (4, 8)
