"""Ways to draft: what vLLM is told, what each release and device makes of it, and what a request may ask for."""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reason_engine.engines.vllm import drafts
from reason_engine.engines.vllm.configuration import VllmConfig
from reason_engine.engines.vllm.drafts import WORKER_CLASS, drafting, drafts_with, speculation
from reason_engine.engines.vllm.engine import VllmEngine
from reason_engine.engines.vllm.release import Release
from reason_engine.errors import MissingExtra, ModelLoadError, SetupError


@pytest.mark.parametrize("draft", ["none", "sam", "ngram", "model:", "eagle:"])
def test_each_way_to_draft_is_what_caps_say(draft: str, tmp_path: Path) -> None:
    loaded = speculation(draft + str(tmp_path) if draft.endswith(":") else draft)
    caps = VllmEngine(VllmConfig(model="x", speculative_config=loaded)).caps
    assert caps.drafting == (draft.rstrip(":"),)
    if draft.endswith(":"):
        assert loaded and loaded["model"] == str(tmp_path)


@pytest.mark.parametrize(
    ("draft", "error", "match"),
    [
        ("suffix", MissingExtra, "arctic-inference"),
        ("model:/nowhere", ModelLoadError, "/nowhere: no such model folder"),
        ("model", SetupError, "--draft model: name the draft model"),
        ("eagle:", SetupError, "--draft eagle:: name the draft model"),
        ("sma", SetupError, "--draft sma: vLLM drafts by one of: none, sam"),
    ],
)
def test_a_way_to_draft_that_there_is_not_is_named(draft: str, error: type[SetupError], match: str) -> None:
    with pytest.raises(error, match=match):
        speculation(draft)


def test_the_drafter_is_found_by_its_name() -> None:
    module, _, name = drafts.DRAFTER_CLASS.rpartition(".")
    assert getattr(import_module(module), name).__name__ == "SamDrafter"


@pytest.mark.parametrize("loaded", [None, {"method": "ngram"}, {"method": "custom_class"}])
def test_drafting_is_what_was_loaded(loaded: dict[str, Any] | None) -> None:
    caps = VllmEngine(VllmConfig(model="x", speculative_config=loaded)).caps
    expected = {None: "none", "ngram": "ngram", "custom_class": "sam"}[loaded["method"] if loaded else None]
    assert caps.drafting == (expected,)


def gpu(version: str) -> Release:
    return Release(version, cpu=False)


def test_the_cpu_drafts_as_it_is_told() -> None:
    for name in ("sam", "ngram"):
        assert drafting(speculation(name), Release("0.33.0", cpu=True)) == {"speculative_config": speculation(name)}
    assert drafting(None, gpu("0.33.0")) == {}


@pytest.mark.parametrize(("version", "method"), [("0.26.0", "ngram_gpu"), ("0.32.0", "ngram_gpu"), ("0.33.0", "ngram")])
def test_n_grams_on_a_gpu_keep_asynchronous_scheduling(version: str, method: str) -> None:
    asked = speculation("ngram")
    assert asked
    made = drafting(asked, gpu(version))["speculative_config"]
    schedule = made.pop("num_speculative_tokens_per_batch_size", [])
    assert made == {**asked, "method": method}
    assert [most for _, _, most in schedule] == ([5, 4, 2, 0] if version >= "0.32" else [])
    own = {**asked, "num_speculative_tokens": 3}
    assert drafting(own, gpu(version)) == {"speculative_config": {**own, "method": method}}
    assert drafting({"method": "mtp"}, gpu(version)) == {"speculative_config": {"method": "mtp"}}
    own = {"method": "custom_class", "model": "my.Drafter"}
    assert drafting(own, gpu(version)) == {"speculative_config": own}


@pytest.mark.parametrize("version", ["0.32.0", "0.33.1"])
def test_sam_on_a_gpu_stands_in_for_the_n_grams_of_the_device(version: str) -> None:
    made = drafting(speculation("sam"), gpu(version))
    assert (made["worker_cls"], made["speculative_config"]["method"]) == (WORKER_CLASS, "ngram_gpu")
    schedule = made["speculative_config"]["num_speculative_tokens_per_batch_size"]
    assert [(first, most) for first, _, most in schedule] == [(1, 8), (5, 4), (17, 2), (33, 0)]
    assert [last + 1 for _, last, _ in schedule[:-1]] == [first for first, _, _ in schedule[1:]]


def test_sam_is_off_where_it_would_cost_the_newer_runner(caplog: pytest.LogCaptureFixture) -> None:
    asked = speculation("sam")
    with caplog.at_level(logging.WARNING):
        made = drafting(asked, gpu("0.31.0"))
    assert made == {}
    assert "--draft sam is off: vLLM 0.31.0" in caplog.text
    assert drafts_with(asked, made, None) == "none"


@pytest.mark.parametrize(
    ("newer", "worker", "name"), [(True, WORKER_CLASS, "sam"), (False, WORKER_CLASS, "ngram"), (True, "own.W", "ngram")]
)
def test_the_drafter_that_was_started_is_told(
    caplog: pytest.LogCaptureFixture, newer: bool, worker: str, name: str
) -> None:
    asked = speculation("sam")
    resolved = SimpleNamespace(use_v2_model_runner=newer, parallel_config=SimpleNamespace(worker_cls=worker))
    with caplog.at_level(logging.WARNING):
        assert drafts_with(asked, drafting(asked, gpu("0.32.0")) | {"worker_cls": worker}, resolved) == name
    assert ("drafts by n-grams" in caplog.text) is (name == "ngram")


def test_drafters_are_called_by_our_names() -> None:
    spec = {"speculative_config": speculation("sam")}
    assert drafts_with(None, {}, None) == "none"
    assert drafts_with(speculation("sam"), spec, None) == "sam"
    assert drafts_with({"method": "ngram_gpu"}, spec, None) == "ngram"
    assert drafts_with({"method": "draft_model"}, spec, None) == "model"
