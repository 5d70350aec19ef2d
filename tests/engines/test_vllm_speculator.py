"""Drafts on the device, called as the runner of vLLM calls them: against a search by hand."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from reason_engine.engines.vllm import speculator
from reason_engine.engines.vllm.matches import REACH, SHORTEST, continuations
from reason_engine.engines.vllm.speculator import SamDrafts, sources

LONGEST = 48


def by_hand(texts: list[list[int]], most: int, width: int) -> list[int] | None:
    """What continues the longest end of the first text, of at most REACH tokens, elsewhere in these."""
    own, best = texts[0], (0, 0, 0)
    end = own[-REACH:]
    for place, text in enumerate(texts):
        for at in range(min(len(text) - 1, width)):
            agree = 0
            for back in range(REACH):
                same = back <= at and back < len(end) and text[at - back] == end[-1 - back]
                agree |= same << (REACH - 1 - back)
            best = max(best, (agree, -place, at))
    agree, place, at = best
    if agree < sum(1 << (REACH - 1 - place) for place in range(SHORTEST)):
        return None
    text = texts[-place]
    copied = text[at + 1 :]
    return [copied[i % len(copied)] for i in range(most)]


class States:
    """The runner's requests, as far as drafts are concerned."""

    def __init__(self, texts: list[list[int]]) -> None:
        table = torch.full((len(texts), LONGEST), 7, dtype=torch.int32)  # what is left of earlier requests
        for row, text in enumerate(texts):
            table[row, : len(text)] = torch.tensor(text)
        self.all_token_ids = SimpleNamespace(gpu=table)
        self.total_len = SimpleNamespace(gpu=torch.tensor([len(text) for text in texts], dtype=torch.int32))
        self.last_sampled_tokens = torch.tensor([[text[-1]] for text in texts])
        self.max_model_len = LONGEST


def batch(ids: list[str], rows: list[int], texts: list[list[int]]) -> Any:
    bounds = torch.tensor([len(texts[row]) for row in rows])
    return SimpleNamespace(
        req_ids=ids, num_reqs=len(ids), idx_mapping=torch.tensor(rows), idx_mapping_np=np.array(rows),
        seq_lens_cpu_upper_bound=bounds,
    )  # fmt: skip


@pytest.mark.parametrize("width", [LONGEST, 12])
def test_the_longest_match_is_continued(width: int) -> None:
    rng = random.Random(5)
    for _ in range(60):
        alphabet = rng.choice([2, 3, 6])
        texts = [[rng.randrange(alphabet) for _ in range(rng.randint(1, LONGEST))] for _ in range(6)]
        states = States(texts)
        rows = [[0, 3, 4, -1], [5, -1, -1, -1], [2, 1, 0, 3]]
        table, lengths = states.all_token_ids.gpu, states.total_len.gpu
        drafts, found = continuations(table, lengths, torch.tensor(rows), width, 5)
        for place, line in enumerate(rows):
            expected = by_hand([texts[row] for row in line if row >= 0], 5, width)
            assert bool(found[place]) is (expected is not None)
            assert expected is None or drafts[place].tolist() == expected


def test_a_text_without_repeats_drafts_its_last_token() -> None:
    texts = [list(range(20)), [1, 2, 3, 9, 1, 2, 3]]
    made = SamDrafts(States(texts), 4).propose(batch(["a/0-x", "b/0-y"], [0, 1], texts))
    assert made.tolist() == [[19] * 4, [9, 1, 2, 3]]


def test_samples_of_one_request_draft_from_one_another() -> None:
    texts = [[1, 2, 3, 4, 5], [9, 9, 3, 4], [8, 3, 4]]
    states = States(texts)
    made = SamDrafts(states, 2).propose(batch(["v/0-x", "v/1-y", "w/0-z"], [0, 1, 2], texts))
    assert made.tolist() == [[5, 5], [5, 5], [4, 4]]


def test_siblings_are_found_by_the_name_of_the_request() -> None:
    ids = ["v/0-ab", "w/0-cd", "v/1-ef", "alone"]
    assert sources(ids, [5, 6, 7, 8]) == [
        [5, 7, -1, -1, -1], [6, -1, -1, -1, -1], [7, 5, -1, -1, -1], [8, -1, -1, -1, -1]
    ]  # fmt: skip
    many = sources([f"v/{i}" for i in range(7)], list(range(7)))
    assert many[5] == [5, 6, 0, 1, 2]


def test_rows_may_move_between_steps() -> None:
    texts = [[1, 2, 3, 1, 2], [6, 7, 8, 6, 7], [4, 4, 4, 4, 4]]
    drafts = SamDrafts(States(texts), 1)
    assert drafts.propose(batch(["a/0", "b/0"], [0, 1], texts)).tolist() == [[3], [8]]
    assert drafts.propose(batch(["b/0", "c/0", "a/0"], [1, 2, 0], texts)).tolist() == [[8], [4], [3]]


def test_a_wide_search_leaves_out_siblings_then_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [[1, 2, 3, 4, 5], [9, 9, 3, 4]]
    asked = batch(["v/0", "v/1"], [0, 1], texts)
    monkeypatch.setattr(speculator, "MOST_PLACES", 12)
    assert SamDrafts(States(texts), 1).propose(asked).tolist() == [[5], [4]]
    repeated = [[1, 2, 3, 1, 2], [6, 6, 6, 7, 6, 6, 6]]
    monkeypatch.setattr(speculator, "MOST_PLACES", 4)
    asked = batch(["v/0", "v/1"], [0, 1], repeated)
    assert SamDrafts(States(repeated), 1).propose(asked).tolist() == [[3], [6]]


def test_nothing_is_searched_where_nothing_is_scheduled(monkeypatch: pytest.MonkeyPatch) -> None:
    def searched(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(speculator, "continuations", searched)
    texts = [[1, 2, 1, 2]]
    drafts, asked = SamDrafts(States(texts), 3), batch(["a/0"], [0], texts)
    assert drafts.propose(asked, num_speculative_tokens=0).tolist() == [[2, 2, 2]]
    assert drafts.propose(input_batch=asked, dummy_run=True, is_profile=True).shape == (1, 3)


def test_only_the_stage_that_samples_drafts() -> None:
    speculator.draft_by_sam(SimpleNamespace(speculator=None))
    runner = SimpleNamespace(speculator=SimpleNamespace(propose=None), req_states=None, num_speculative_steps=4)
    speculator.draft_by_sam(runner)
    assert runner.speculator.propose.__self__._most == 4
    with pytest.raises(AttributeError):
        speculator.SomethingElse  # noqa: B018
