"""Side networks: what the engine reads is what training read, and they know the likelihoods before they are trained."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.rewards.folders import read_reward
from reason_engine.errors import ModelLoadError, RequestError
from reason_engine.types import Message, ScoreRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")
TURNS = (Message("user", "2 + 3?"),)
TEXT = "one\ntwo\nthree"
ENDS = (3, 7, 13)


def write_side(folder: Path, base: Path, *, trained: bool) -> Any:
    """A process head beside `base` as training leaves it, and what training would read of it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from reason_engine.training.supervised.process_reward import Processes, ProcessRewardConfig
    from reason_engine.training.supervised.reward import head_saver

    fields = {"out": folder, "model": base, "data": "d", "tokens": 1, "train": "side", "wide": 32, "deep": 2}
    fields["step_end"] = "\n"
    config = ProcessRewardConfig.model_validate(fields)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    made = Processes(config, AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tokenizer)
    if trained:
        torch.nn.init.normal_(made.model.score.out.weight)
    for parameter in made.model.score.parameters():
        parameter.data = parameter.data.bfloat16().float()  # as it is written
    head_saver(config, "process")(made.model, tokenizer, folder)
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_qwen3: Path) -> dict[str, tuple[Path, Any]]:
    home = tmp_path_factory.mktemp("side")
    return {
        name: (home / name, write_side(home / name, tiny_qwen3, trained=name == "trained"))
        for name in ("fresh", "trained")
    }


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(made: dict[str, tuple[Path, Any]], tiny_qwen3: Path) -> AsyncIterator[Embedded]:
    rewards = {name: str(folder) for name, (folder, _) in made.items()}
    engine = Embedded(tiny_qwen3, inline=True, dtype="float32", rewards=rewards)
    await engine.start()
    yield engine
    await engine.close()


def ask(text: str = TEXT, **fields: Any) -> ScoreRequest:
    steps: dict[str, Any] = {"task": "token_reward", "model": "trained", "turns": TURNS, "ends": (ENDS,)}
    return ScoreRequest("s", (text,), **(steps | fields))


@pytest.mark.parametrize("name", ["fresh", "trained"])
async def test_the_engine_reads_what_training_read(
    engine: Embedded, made: dict[str, tuple[Path, Any]], name: str
) -> None:
    import torch

    from reason_engine.data.formats.rows import Stepwise
    from reason_engine.training.common.forward import body_of
    from reason_engine.training.supervised.reward import head_values

    process = made[name][1]
    rows = [
        Stepwise(TURNS, tuple(TEXT.split("\n")), (1.0, 1.0, 0.0)),
        Stepwise((Message("user", "and something that is longer?"),), ("a", "b"), (1.0, 1.0)),
    ]
    items = [(item.ids, item.places, item.right[0]) for item in process.encode(rows)]
    config, body = process._config, body_of(process.model, False)
    with torch.no_grad():
        values = head_values(config, process.model, process._lm_head, body, items).tolist()
    (read,) = (await engine.score(ask(model=name))).values
    assert read == pytest.approx(values[:3], abs=1e-3)
    if name == "fresh":
        assert read[0] > read[1] > read[2]  # more tokens that may be wrong


async def test_a_likelier_answer_has_the_higher_value_before_training(engine: Embedded) -> None:
    from reason_engine.types import GenerateRequest, Sampling

    ids = tuple(engine.tokenize(engine.render_chat(TURNS)))
    texts = ["", ""]
    for number, temperature in enumerate((0.0, 4.0)):
        request = GenerateRequest(f"g-{number}", ids, 1, Sampling(12, temperature, seed=3, ignore_eos=True))
        async for chunk in engine.generate(request):
            texts[number] += chunk.text
    likely, odd = [
        (await engine.score(ask(text, task="reward", model="fresh", ends=()))).values[0][0] for text in texts
    ]
    assert likely > odd + 1


async def test_a_path_is_read_after_the_prompt_that_it_had(engine: Embedded) -> None:
    other = (Message("user", "2 + 3?\nThink."),)
    prompt = engine.render_chat(other)
    by_prompt, by_turns, without = [
        (await engine.score(ask(**fields))).values[0] for fields in ({"prompts": (prompt,)}, {"turns": other}, {})
    ]
    assert by_prompt == pytest.approx(by_turns, abs=1e-4)
    assert by_prompt != pytest.approx(without, abs=1e-3)
    with pytest.raises(RequestError, match="prompts and inputs differ in number"):
        await engine.score(ask(prompts=(prompt, prompt)))


async def test_an_empty_answer_is_not_right(engine: Embedded) -> None:
    ((value,),) = (await engine.score(ask("", task="reward", ends=()))).values
    assert value < -10


async def test_without_a_conversation_the_text_is_the_answer(engine: Embedded) -> None:
    (values,) = (await engine.score(ask(turns=()))).values
    assert len(values) == 3


@pytest.mark.parametrize(
    "side", [{"width": 32}, {"width": 33, "depth": 1}, {"width": 32, "depth": 0}, {"width": "a", "depth": 1}, 7]
)
async def test_a_head_file_with_other_sizes_is_refused(
    made: dict[str, tuple[Path, Any]], tmp_path: Path, side: object
) -> None:
    (tmp_path / "head.safetensors").write_bytes((made["fresh"][0] / "head.safetensors").read_bytes())
    (tmp_path / "head.json").write_text(json.dumps({"kind": "process", "side": side}))
    with pytest.raises(ModelLoadError, match=r"head.json: side must hold a width, a multiple of 32"):
        read_reward("x", str(tmp_path))


async def test_weights_of_another_network_are_refused(
    made: dict[str, tuple[Path, Any]], tmp_path: Path, tiny_qwen3: Path
) -> None:
    (tmp_path / "head.safetensors").write_bytes((made["fresh"][0] / "head.safetensors").read_bytes())
    (tmp_path / "head.json").write_text(json.dumps({"kind": "process", "side": {"width": 64, "depth": 2}}))
    engine = Embedded(tiny_qwen3, inline=True, rewards={"x": str(tmp_path)})
    with pytest.raises(ModelLoadError, match="size mismatch"):
        await engine.start()
