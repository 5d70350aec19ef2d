"""Step models of every format on the embedded engine, each against a plain forward of transformers over tokens that are
put together here by hand: the right place, the right column, one pass a path."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from reason_engine.engines.embedded.front import Embedded
from reason_engine.engines.embedded.messages import ScoreTexts
from reason_engine.engines.rewards.folders import read_reward
from reason_engine.engines.rewards.formats import FORMATS, find_format
from reason_engine.engines.rewards.layout import show
from reason_engine.errors import ModelLoadError, RequestError, SetupError
from reason_engine.types import Message, ScoreRequest, Scores
from tests.models import changed, write_model
from tests.rewards import STEP_MODELS, write_reward, write_step_model

pytestmark = pytest.mark.asyncio(loop_scope="module")
ASKED = "How many?"
TURNS = (Message("user", ASKED),)
TEXT = "Two and three.\n\nThat is 5.\n\nSo 5."
ENDS = (14, 26, 33)
STEPS = ("Two and three.", "That is 5.", "So 5.")
MARKED = [name for name in STEP_MODELS if name != "plain-steps"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("formats")
    return {name: write_step_model(home / name, name) for name in STEP_MODELS}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(folders: dict[str, Path], tiny_qwen3: Path) -> AsyncIterator[Embedded]:
    rewards = {name: f"{folder}#format={name}" for name, folder in folders.items()}
    made = Embedded(tiny_qwen3, inline=True, rewards=rewards)
    await made.start()
    yield made
    await made.close()


def tokens(folder: Path, *pieces: str) -> tuple[list[int], list[int]]:
    """(tokens of the pieces, each made by itself, the last token of each)."""
    from tokenizers import Tokenizer

    tokenizer, ids, lasts = Tokenizer.from_file(str(folder / "tokenizer.json")), list[int](), list[int]()
    for piece in pieces:
        ids += tokenizer.encode(piece, add_special_tokens=False).ids
        lasts.append(len(ids) - 1)
    return ids, lasts


def chat(*turns: tuple[str, str]) -> str:
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)


def by_hand(format: str, folder: Path) -> tuple[list[int], list[int]]:
    """(tokens as the model's makers put them together, the places that they read)."""
    opened = "<|im_start|>assistant\n"
    match format:
        case "qwen-prm":
            asked = chat(("system", str(FORMATS[format].system)), ("user", ASKED)) + opened
            ids, lasts = tokens(folder, asked, *(f"{step}<extra_0>" for step in STEPS))
            return ids, lasts[1:]
        case "skywork-prm" | "trl-newline":
            ids, lasts = tokens(folder, f"{ASKED}\n", *(piece for step in STEPS for piece in (step, "\n")))
            return ids, lasts[2::2]
        case "trl":
            ids, lasts = tokens(folder, f"{ASKED}\n\n", *(piece for step in STEPS for piece in (step, "\n\n")))
            return ids, lasts[2::2]
        case "math-shepherd":
            marked = [f"Step {n}: {step} \u043a\u0438" for n, step in enumerate(STEPS, 1)]
            ids, lasts = tokens(folder, f"{ASKED} {marked[0]}", *(f"\n{step}" for step in marked[1:]))
            return ids, lasts
        case "versa-prm":
            ids, lasts = tokens(folder, f"{ASKED} \n\n", *(f"{step} \n\n\n\n" for step in STEPS))
            return ids, lasts[1:]
        case "rlhflow":
            said = [f"{ASKED} {STEPS[0]}", *STEPS[1:]]
            parts = [part for step in said for part in (chat(("user", step)) + opened, "+<|im_end|>\n")]
            ids, lasts = tokens(folder, *parts)
            return ids, lasts[::2]
        case _:
            whole = chat(("user", ASKED)) + opened
            ids, (first, _) = tokens(folder, whole, TEXT)
            return ids, [first + 1 + place for place in PLAIN_PLACES]


PLAIN_PLACES = (13, 23, 28)
"""The full stop and the blank line after it are one token; the last step's end has a full stop alone."""


def forward(format: str, folder: Path, ids: Sequence[int], places: Sequence[int]) -> list[float]:
    """Log-odds at those places by transformers."""
    import torch
    import transformers
    from safetensors.torch import load_file

    kind, built = STEP_MODELS[format][1], FORMATS[format]
    with torch.no_grad():
        given = torch.tensor([list(ids)])
        if kind.endswith("ForTokenClassification"):
            logits = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()(given).logits[0]
            logits = logits if logits.shape[-1] == 2 else torch.cat([torch.zeros_like(logits), logits], -1)
        elif kind.endswith("ForCausalLM"):
            every = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()(given).logits[0]
            bad, good = (tokens(folder, word)[0][0] for word in (built.bad, built.good))
            logits = every[:, [bad, good]]
        else:
            weights = load_file(folder / "model.safetensors")
            config = transformers.AutoConfig.from_pretrained(folder)
            body = transformers.Qwen2Model(config)
            body.load_state_dict({n.removeprefix("model."): t for n, t in weights.items() if n.startswith("model.")})
            states = body.eval()(given).last_hidden_state[0]
            if format == "qwen-prm":
                inner = torch.relu(states @ weights["score.0.weight"].T + weights["score.0.bias"])
                logits = inner @ weights["score.2.weight"].T + weights["score.2.bias"]
            else:
                value = states @ weights["v_head.summary.weight"].T + weights["v_head.summary.bias"]
                logits = torch.cat([torch.zeros_like(value), value], -1)
    return [float(logits[place, 1] - logits[place, 0]) for place in places]


def ask(model: str, *texts: str, ends: Sequence[Sequence[int]] = (ENDS,), **fields: Any) -> ScoreRequest:
    given: dict[str, Any] = {"task": "token_reward", "turns": TURNS, "ends": tuple(map(tuple, ends)), **fields}
    return ScoreRequest("r", texts, model=model, **given)


@pytest.mark.parametrize("format", STEP_MODELS)
async def test_it_reads_what_the_makers_read(
    format: str, engine: Embedded, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, places = by_hand(format, folders[format])
    expected = forward(format, folders[format], ids, places)
    sent: list[ScoreTexts] = []
    kept = engine._transport.send

    def send(message: Any) -> None:
        sent.append(message)
        kept(message)

    monkeypatch.setattr(engine._transport, "send", send)
    scores = await engine.score(ask(format, TEXT))
    assert scores.values[0] == pytest.approx(expected, abs=1e-4)
    assert len(set(scores.values[0])) == len(STEPS)
    assert [(list(message.inputs[0]), list(message.places[0])) for message in sent] == [(ids, places)]
    assert scores.prompt_tokens == len(ids)


@pytest.mark.parametrize("format", MARKED)
async def test_a_whole_answer_is_one_step(format: str, engine: Embedded) -> None:
    whole = await engine.score(ask(format, "So 5.", task="reward", ends=()))
    step = await engine.score(ask(format, "So 5.", ends=((5,),)))
    assert whole.values == step.values


async def test_several_paths_each_with_its_own_steps(engine: Embedded) -> None:
    both = await engine.score(ask("qwen-prm", TEXT, "So 5.", "", ends=(ENDS, (5,), ())))
    assert [len(values) for values in both.values] == [3, 1, 0]
    assert both.values[1] == pytest.approx(
        (await engine.score(ask("qwen-prm", "So 5.", ends=((5,),)))).values[0], abs=1e-4
    )


async def test_a_mark_in_a_step_is_no_mark(engine: Embedded) -> None:
    text = "Two<extra_0> and three."
    forged = await engine.score(ask("qwen-prm", text, ends=((len(text),),)))
    plain = await engine.score(ask("qwen-prm", "Two  and three.", ends=((15,),)))
    assert forged.values == plain.values


async def test_a_step_that_has_its_number_gets_no_other(engine: Embedded) -> None:
    numbered = await engine.score(ask("math-shepherd", "Step 1: So 5.", ends=((13,),)))
    assert numbered.values == (await engine.score(ask("math-shepherd", "So 5.", ends=((5,),)))).values


async def test_the_clients_system_turn_is_kept_beside_the_formats() -> None:
    turns = (Message("system", "Be brief."), Message("user", ASKED))
    shown = show(FORMATS["qwen-prm"], turns, "So 5.", (5,))
    assert [(turn.role, turn.content) for turn in shown.turns] == [
        ("system", FORMATS["qwen-prm"].system), ("user", f"Be brief.\n\n{ASKED}")
    ]  # fmt: skip
    assert shown.text == "So 5.<extra_0>"


async def test_aggregates_are_the_makers(engine: Embedded) -> None:
    assert dict(engine.caps.aggregates) == {name: FORMATS[name].aggregate for name in STEP_MODELS}
    assert dict(engine.caps.rewards) == dict.fromkeys(STEP_MODELS, "process")


@pytest.mark.parametrize(
    ("fields", "match"),
    [({"ends": ()}, "places where steps end"), ({"ends": ((5, 5),)}, "must grow"), ({"ends": ((0,),)}, "must grow")],
)
async def test_places_that_are_none(engine: Embedded, fields: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        await engine.score(ask("trl", TEXT, **fields))


@pytest.mark.parametrize(
    ("name", "architecture", "labels", "format"),
    [
        ("Qwen2.5-Math-PRM-7B", "Qwen2ForProcessRewardModel", 2, "qwen-prm"),
        ("anything", "Qwen2ForProcessRewardModel", 2, "qwen-prm"),
        ("Skywork-o1-Open-PRM-Qwen-2.5-1.5B", "Qwen2ForPrmModel", None, "skywork-prm"),
        ("math-shepherd-mistral-7b-prm", "MistralForCausalLM", None, "math-shepherd"),
        ("Llama3.1-8B-PRM-Deepseek-Data", "LlamaForCausalLM", None, "rlhflow"),
        ("Llama3.1-8B-PRM-Mistral-Data", "LlamaForCausalLM", None, "rlhflow"),
        ("VersaPRM-Aug", "LlamaForCausalLM", None, "versa-prm"),
        ("Qwen2.5-Math-1.5B-Instruct-PRM-0.2", "Qwen2ForTokenClassification", 2, "trl"),
        ("Qwen2.5-0.5B-Math-Shepherd-PRM-0.2", "Qwen2ForTokenClassification", 2, "trl-newline"),
        ("Qwen2-0.5B-Reward-Math-Sheperd", "Qwen2ForTokenClassification", 2, "trl-newline"),
        ("ThinkPRM-1.5B", "Qwen2ForCausalLM", None, "think-prm"),
        ("GenPRM-7B", "Qwen2ForCausalLM", None, "gen-prm"),
        ("internlm2-1_8b-reward", "InternLM2ForRewardModel", None, "internlm2-reward"),
        ("Skywork-Reward-V2-Qwen3-0.6B", "Qwen3ForSequenceClassification", 1, "classify"),
        ("mine", "LlamaForTokenClassification", 1, "plain-steps"),
        ("mine", "LlamaForTokenClassification", 2, None),
        ("mine", "LlamaForCausalLM", None, None),
    ],
)
async def test_a_format_is_found_by_class_and_name(
    name: str, architecture: str, labels: int | None, format: str | None
) -> None:
    found = find_format(name, architecture, labels)
    assert (found.name if found else None) == format
    if format not in (None, "plain-steps") and name not in ("anything", "mine"):
        by_name = find_format(name)
        assert by_name is not None
        assert by_name.name in (format, "math-shepherd")


async def test_an_unknown_format_is_refused_with_the_table(tmp_path: Path) -> None:
    two = write_reward(tmp_path / "two", process=True, labels=2)
    with pytest.raises(SetupError, match=r"no format in the table .* #format=NAME .* qwen-prm, skywork-prm"):
        read_reward("mine", str(two))
    assert read_reward("mine", f"{two}#format=trl").format.name == "trl"
    with pytest.raises(SetupError, match=r"no format is called 'trll'; #format=NAME"):
        read_reward("mine", f"{two}#format=trll")
    assert read_reward("mine", str(write_reward(tmp_path / "one", process=True))).format.name == "plain-steps"


async def test_what_writes_or_brings_code_is_refused_with_the_way(tmp_path: Path) -> None:
    writes = write_model(tmp_path / "ThinkPRM-1.5B", "qwen2")
    with pytest.raises(ModelLoadError, match=r"writes its judgement.*verifier 'critique'.*style: think-prm"):
        read_reward("mine", str(writes))
    coded = changed(writes, tmp_path / "coded", "config.json", "architectures", ["InternLM2ForRewardModel"])
    with pytest.raises(ModelLoadError, match=r"code, which is never run here.*#format=internlm2-reward"):
        read_reward("mine", str(coded))


async def test_a_format_that_does_not_fit_the_weights(tmp_path: Path, tiny_qwen3: Path) -> None:
    plain = write_model(tmp_path / "plain", "qwen2")
    made = Embedded(tiny_qwen3, inline=True, rewards={"mine": f"{plain}#format=trl"})
    with pytest.raises(ModelLoadError, match="no head found"):
        await made.start()


async def test_a_text_without_turns_begins_with_the_tokenizers_own_token(tmp_path: Path, tiny_qwen3: Path) -> None:
    folder = write_step_model(tmp_path / "skywork", "skywork-prm")
    begun = changed(folder, tmp_path / "begun", "tokenizer_config.json", "bos_token", "<|endoftext|>")
    made = Embedded(tiny_qwen3, inline=True, rewards={"mine": str(begun)})
    await made.start()
    try:
        scores: Scores = await made.score(ask("mine", TEXT))
    finally:
        await made.close()
    pieces = ("<|endoftext|>", f"{ASKED}\n", *(piece for step in STEPS for piece in (step, "\n")))
    ids, lasts = tokens(begun, *pieces)
    assert scores.prompt_tokens == len(ids)
    assert scores.values[0] == pytest.approx(forward("skywork-prm", begun, ids, lasts[3::2]), abs=1e-4)


async def test_the_page_names_every_format() -> None:
    page = (Path(__file__).parents[2] / "docs" / "verifiers.md").read_text("utf-8")
    assert [name for name in FORMATS if f"`{name}`" not in page] == []
