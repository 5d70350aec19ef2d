"""The decoder's arithmetic against transformers' own models, the store, the prefix cache and the draws."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from reason_engine.engines.embedded.cells.prefixes import PrefixCache
from reason_engine.engines.embedded.cells.rows import KeyValues, Row
from reason_engine.engines.embedded.model.decoder import Decoder
from reason_engine.engines.embedded.model.shape import read_shape
from reason_engine.engines.embedded.model.weights import load_weights
from reason_engine.engines.embedded.prefill import advance, new_segment
from reason_engine.engines.embedded.sampling.streams import rng_streams, rng_uniforms
from reason_engine.errors import ModelLoadError
from tests.models import LLAMA3, YARN, write_model

CPU = torch.device("cpu")
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("qwen3", {}),
    ("qwen3", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    ("qwen2", {}),
    ("llama", {}),
    ("llama", {"rope_parameters": LLAMA3}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    ("qwen3", {"rope_parameters": YARN}),
]


def load(folder: Path) -> Decoder:
    shape = read_shape(folder)
    return Decoder(shape, load_weights(folder, shape, torch.float32, CPU), torch.float32, CPU)


@pytest.fixture(scope="module")
def decoder(tiny_qwen3: Path) -> Decoder:
    return load(tiny_qwen3)


def prefilled(decoder: Decoder, ids: list[int], limit: int = 1000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at every position and the keys and values, read in pieces of at most `limit`."""
    one = new_segment(decoder, ids, keep=min(limit, len(ids)))
    whole: list[Any] = []
    while not whole:
        whole = advance(decoder, [one], limit, None)
    return decoder.logits(whole[0][1]), one.kv


@torch.inference_mode()
@pytest.mark.parametrize(("kind", "config"), KINDS, ids=lambda v: str(v)[:24])
def test_logits_equal_those_of_transformers(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    folder = write_model(tmp_path, kind, **config)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.randint(0, 256, (265,), generator=torch.Generator().manual_seed(1)).tolist()
    logits, kv = prefilled(load(folder), ids[:250])
    expected = theirs(torch.tensor([ids])).logits[0]
    scale = expected.std()
    assert (logits - expected[:250]).abs().max() / scale < 1e-4

    ours = load(folder)
    store = KeyValues(ours.shape, torch.float32, CPU)
    row = Row(ids[:251], None)
    store.add([row], kv)
    for place in range(250, 265):
        row.ids = ids[: place + 1]
        if store.make_room(1) or place == 250:
            store.lay_out()
        store.open()
        hidden = ours.forward(torch.tensor([ids[place]]), torch.tensor([place]), store.attend, place + 1)
        store.close()
        assert (ours.logits(hidden)[0] - expected[place]).abs().max() / scale < 1e-4


@torch.inference_mode()
def test_reading_in_pieces_and_from_a_prefix_changes_nothing(decoder: Decoder) -> None:
    ids = list(range(1, 101))
    whole, kv = prefilled(decoder, ids)
    in_pieces = new_segment(decoder, ids)
    done: list[Any] = []
    passes = 0
    while not done:
        done = advance(decoder, [in_pieces], 17, None)
        passes += 1
    assert passes == 6
    torch.testing.assert_close(decoder.logits(done[0][1])[-1], whole[-1], atol=1e-4, rtol=1e-4)
    rest = new_segment(decoder, ids, [kv], 90)
    assert rest.left == 10
    [(_, hidden)] = advance(decoder, [rest], 1000, None)
    torch.testing.assert_close(decoder.logits(hidden)[-1], whole[-1], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_several_prompts_in_one_pass_do_not_see_each_other(decoder: Decoder) -> None:
    prompts = [[5, 6, 7], [8] * 40, [9, 10]]
    alone = [prefilled(decoder, ids)[0][-1] for ids in prompts]
    together = advance(decoder, [new_segment(decoder, ids) for ids in prompts], 1000, None)
    for (_, hidden), expected in zip(together, alone, strict=True):
        torch.testing.assert_close(decoder.logits(hidden)[-1], expected, atol=1e-4, rtol=1e-4)


def test_a_prefix_is_found_by_its_tokens_and_only_in_its_space() -> None:
    cache = PrefixCache(10_000)
    ids = list(range(30))
    cache.add("a", ids, torch.zeros(1, 30, 2, 1))
    found, shared = cache.find("a", [*ids[:21], 99, 98])
    assert [piece.shape[1] for piece in found] == [21]
    assert shared == 21
    assert cache.find("b", ids) == ([], 0)
    assert cache.find("a", [1, *ids]) == ([], 0)


def test_the_prefix_cache_keeps_its_bound_and_the_most_recent() -> None:
    cache = PrefixCache(4 * 160)
    for first in range(6):
        cache.add(0, [first] * 20, torch.zeros(1, 20, 2, 1))
    assert cache.used <= cache.limit
    assert cache.find(0, [0] * 20) == ([], 0)
    assert cache.find(0, [5] * 20)[1] == 20
    cache.add(0, list(range(200)), torch.zeros(1, 200, 2, 1))
    assert cache.find(0, list(range(200))) == ([], 0)


def test_draws_depend_on_seed_and_place_alone_and_are_uniform() -> None:
    seeds, places = list(range(50)), np.arange(1000, dtype=np.uint64)
    table = np.stack([rng_uniforms(rng_streams(seeds), np.full(50, p, np.uint64)) for p in places])
    again = rng_uniforms(rng_streams([7]), np.array([3], dtype=np.uint64))
    assert table[3, 7] == again[0]
    assert 0 <= table.min() < table.max() < 1
    assert abs(table.mean() - 0.5) < 4 / math.sqrt(12 * table.size)
    assert abs(np.corrcoef(table[:, 0], table[:, 1])[0, 1]) < 0.15
    assert rng_uniforms(rng_streams([-1]), np.array([0], dtype=np.uint64))[0] < 1


def test_float32_norms_are_folded_and_half_precision_ones_are_not(tiny_qwen3: Path) -> None:
    shape = read_shape(tiny_qwen3)
    assert load_weights(tiny_qwen3, shape, torch.float32, CPU).layers[0].norm_in is None
    half = load_weights(tiny_qwen3, shape, torch.bfloat16, CPU)
    assert half.layers[0].norm_in is not None
    ids = list(range(40))
    with torch.inference_mode():
        logits, _ = prefilled(Decoder(shape, half, torch.bfloat16, CPU), ids)
        exact, _ = prefilled(load(tiny_qwen3), ids)
    assert torch.nn.functional.cosine_similarity(logits, exact).min() > 0.99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM"),
        ({"architectures": None}, "architecture"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type"),
        ({"hidden_size": "wide"}, "config.json"),
        ({"vocab_size": None}, "config.json"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused(
    tiny_qwen3: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    import json

    config = json.loads((tiny_qwen3 / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelLoadError, match=message):
        read_shape(tmp_path)
