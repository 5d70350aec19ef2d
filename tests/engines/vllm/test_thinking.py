"""A limit of thoughts: forced at the limit, and nowhere else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from reason_engine.engines.vllm import cpu_repairs, requests, thinking
from reason_engine.engines.vllm.engine import VllmConfig, VllmEngine
from reason_engine.engines.vllm.release import vllm_module
from reason_engine.types import Message
from tests.engines.vllm.tiny import GREEDY, MARKS, ids, run, text
from tests.models import write_model

pytestmark = MARKS

OPENS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
SENTENCE = "the answer has to come now"


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    from tokenizers import Tokenizer

    folder = write_model(tmp_path_factory.mktemp("thinker"), head_dim=32, max_position_embeddings=512, vocab_size=264)
    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.save(path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": OPENS}))
    made = VllmEngine(VllmConfig(model=str(folder), dtype="float32"))
    asyncio.run(made.start())
    yield made
    asyncio.run(made.close())


async def test_a_thought_ends_at_its_limit_with_the_sentence(thinker: VllmEngine) -> None:
    prompt = thinker.render_chat([Message("user", "hi")])
    free = await run(thinker, prompt, sampling=replace(GREEDY, max_tokens=100))
    assert "</think>" not in text(free)
    held = await run(thinker, prompt, sampling=replace(GREEDY, max_tokens=100, thinking=12))
    before, mark, answer = text(held).partition("</think>")
    assert mark
    assert SENTENCE in before
    # the line break that opens the thought counts as well
    assert ids(held)[:11] == ids(free)[:11]
    assert thinker.detokenize(ids(held)[11:]).startswith("\n\nTime is up")
    assert SENTENCE not in answer
    assert len(ids(held)) == 100
    parsed = thinker.parse(text(held), prompt=prompt)
    assert parsed.content


async def test_an_answer_is_not_limited(thinker: VllmEngine) -> None:
    prompt = thinker.render_chat([Message("user", "hi")], think=False)
    held = await run(thinker, prompt, sampling=replace(GREEDY, max_tokens=60, thinking=5))
    assert text(held) == text(await run(thinker, prompt, sampling=replace(GREEDY, max_tokens=60)))


async def test_a_model_without_thoughts_ignores_the_limit(engine: VllmEngine) -> None:
    assert ids(await run(engine, sampling=replace(GREEDY, thinking=3))) == ids(await run(engine))


def test_a_natural_end_is_seen_by_its_mark_alone() -> None:
    """Without the repair the runner waits for the sentence, and forces it into the answer."""
    cpu_repairs.find_ends_of_thoughts()
    holder = vllm_module("v1.sample.thinking_budget_state").ThinkingBudgetStateHolder
    told = SimpleNamespace(
        reasoning_start_token_ids=[1], reasoning_end_token_ids=[7, 8, 2], natural_reasoning_end_token_ids=[2]
    )
    made = holder(told, 4, 0, "cpu", False)
    made._state[0] = made._init_state_entry([5, 1], 3)
    for output in ([6], [6, 2], [6, 2, 6], [6, 2, 6, 6, 6, 6, 6]):
        made.update_state([output], None)
        assert not made._state[0]["in_end"], output
    assert not made._init_state_entry([1, 6, 2, 6], 1)["in_think"]
    assert made._init_state_entry([1, 6, 6, 6], 1)["in_end"]


def test_marks_that_are_control_tokens_stay_in_the_text() -> None:
    made = [requests.sampling_params(GREEDY, index=0, room=9, eos_ids=(), specials=kept) for kept in (False, True)]
    assert [params.skip_special_tokens for params in made] == [True, False]


def test_the_release_offers_it() -> None:
    assert thinking.offers_budget()
