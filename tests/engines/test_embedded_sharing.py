"""Shared prompts in the whole engine: the same text alone and among others, within the bound, across a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reason_engine.engines.chat import ChatFormat
from reason_engine.engines.embedded import memory
from reason_engine.engines.embedded.messages import Generate, OutputBuffer, StepOutput, WorkerConfig
from reason_engine.engines.embedded.model.loading import load_decoder
from reason_engine.engines.embedded.sample import Sample
from reason_engine.engines.embedded.scheduler import Scheduler
from reason_engine.engines.text import Vocabulary
from reason_engine.types import Sampling
from tests.models import write_model

WARM = Sampling(max_tokens=30, temperature=0.7, ignore_eos=True, seed=3)
PROMPT = tuple(ord(c) % 200 for c in "A prompt of some length, which all of its samples have in common. " * 5)


class Run:
    """A scheduler driven step by step, with what every sample said and what its cells took at most."""

    def __init__(self, folder: Path, **config: object) -> None:
        made = WorkerConfig(str(folder), **config)  # pyright: ignore[reportArgumentType]
        chat, decoder = ChatFormat.load(folder), load_decoder(folder, dtype=made.dtype, threads=1)
        self.said: dict[tuple[str, int], list[int]] = {}
        self.ended: dict[tuple[str, int], str] = {}
        self.most = 0
        output = OutputBuffer(self._take, 0.0)
        self.scheduler = Scheduler(decoder, Vocabulary(chat.tokenizer), frozenset(), output, made)
        self.cell = self.scheduler.batch.store.cell_bytes

    def _take(self, output: StepOutput) -> None:
        for delta in output.deltas:
            self.said.setdefault((delta.request, delta.index), []).extend(delta.ids)
            if delta.finish is not None:
                self.ended[delta.request, delta.index] = delta.finish

    def __call__(
        self, *requests: Generate, watch: Callable[[], None] | None = None
    ) -> dict[tuple[str, int], list[int]]:
        """All of them together, to their end."""
        self.said, self.ended = {}, {}
        with torch.inference_mode():
            for one in requests:
                self.scheduler.start(one)
            while self.scheduler.busy:
                self.scheduler.step()
                self.scheduler.output.flush(0, 0, now=True)
                batch = self.scheduler.batch
                taken = batch.store.nbytes + self.scheduler.prefixes.used + batch.shared.nbytes
                self.most = max(self.most, taken - self.scheduler.prefixes.held)
                if watch is not None:
                    watch()
            self.scheduler.output.flush(0, 0, now=True)
        return self.said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "long", max_position_embeddings=2048)


@pytest.fixture(autouse=True)
def heavy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the model were large: every prompt is shared."""
    monkeypatch.setattr(memory, "LIGHT", 0)
    yield


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_seed_says_the_same_alone_and_among_others(folder: Path, dtype: str, temperature: float) -> None:
    sampling, run = replace(WARM, temperature=temperature, max_tokens=12), Run(folder, dtype=dtype)
    alone = [run(Generate("a", PROMPT, 1, replace(sampling, seed=3 + i)))["a", 0] for i in (0, 7, 15)]
    fresh = Run(folder, dtype=dtype)
    others = [Generate(f"o{i}", (*PROMPT[:280], *range(i, 90)), 1, sampling) for i in range(3)]
    said = fresh(*others, Generate("a", PROMPT, 16, sampling), Generate("s", PROMPT[:20], 1, sampling))
    assert [said["a", i] for i in (0, 7, 15)] == alone


@pytest.mark.parametrize(
    ("light", "prompt", "cells"), [(0, PROMPT, 1200), (10**9, PROMPT[:100], 800)], ids=["shared", "plain"]
)
def test_a_full_cache_sets_the_youngest_back_and_fails_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, light: int, prompt: tuple[int, ...], cells: int
) -> None:
    """Four samples begin, and not all of them find room when they outgrow their first bin."""
    monkeypatch.setattr(memory, "LIGHT", light)
    requests = [Generate(f"r{i}", (*prompt, i), 2, replace(WARM, max_tokens=140)) for i in range(2)]
    loose = Run(folder)
    expected = loose(*requests)
    tight = Run(folder, cache_bytes=cells * loose.cell)
    batch, left = tight.scheduler.batch, list[tuple[str, int]]()
    leave = batch.leave

    def watched(sample: Sample) -> None:
        if sample.finish is None:
            assert sample.number == max(one.number for one in batch.samples)
            left.append((sample.request.id, sample.index))
        leave(sample)

    monkeypatch.setattr(batch, "leave", watched)
    assert tight(*requests) == expected
    assert left
    assert set(tight.ended.values()) == {"length"}
    assert tight.most <= tight.scheduler.memory.limit


def test_one_sample_that_outgrows_the_cache_goes_on(folder: Path) -> None:
    sampling = replace(WARM, max_tokens=20)
    expected = Run(folder)(Generate("a", PROMPT, 1, sampling))
    assert Run(folder, cache_bytes=100)(Generate("a", PROMPT, 1, sampling)) == expected


def test_children_of_a_search_share_their_parents_cells(folder: Path) -> None:
    """Three paths of 40 tokens, four children each: the prompt is there once, and every path once."""
    run = Run(folder)
    prompt = (*PROMPT, *PROMPT)[:600]
    paths = run(Generate("parents", prompt, 3, replace(WARM, max_tokens=41)))
    children = [
        Generate(f"child {i}", (*prompt, *path[:40]), 4, replace(WARM, seed=100 * i, max_tokens=8))
        for i, path in enumerate(paths.values())
    ]
    batch, prefixes, seen = run.scheduler.batch, run.scheduler.prefixes, list[tuple[int, int, int]]()

    def watch() -> None:
        if len(batch.samples) == 12:
            blocks = {
                chunk.block: chunk.length for row in batch.store.rows if row.shared for chunk in row.shared.chunks
            }
            total = sum(len(one.ids) - 1 for one in batch.samples)
            seen.append((prefixes.held // run.cell, len(blocks), total))

    before = prefixes.used // run.cell
    said = run(*children, watch=watch)
    assert before == 600 + 3 * 40
    held, blocks, total = seen[0]
    assert held == 600
    assert blocks == 1 + 3
    assert total > 12 * 640
    alone = Run(folder)(children[1])
    assert [said["child 1", i] for i in range(4)] == list(alone.values())


def test_an_aborted_sample_lets_go_of_what_it_shared(folder: Path) -> None:
    run = Run(folder)

    def watch() -> None:
        if run.scheduler.batch.samples:
            assert run.scheduler.prefixes.held > 0
            run.scheduler.abort("a", run.scheduler.batch.samples[0].index)

    run(Generate("a", PROMPT, 4, WARM), watch=watch)
    assert run.scheduler.prefixes.held == run.scheduler.batch.shared.nbytes == 0
    assert sorted(run.ended.values()) == ["abort"] * 4


def test_a_light_model_shares_what_pays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LIGHT", 10**9)
    run, shares = Run(folder), list[bool]()
    wide, narrow = [Generate(name, PROMPT, n, WARM) for name, n in (("wide", 16), ("narrow", 2))]
    for request in (wide, narrow):
        run(request, watch=lambda: shares.append(any(row.shared for row in run.scheduler.batch.store.rows)))
    assert shares[0] and not shares[-1]
