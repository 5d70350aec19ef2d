"""Each loss against its formula, worked out with the library's own forward pass on unpadded rows."""

from __future__ import annotations

import copy
from math import exp, log
from pathlib import Path
from typing import Any

import pytest

from reason_engine.data.formats.rows import Conversation, Labelled, Preference, Stepwise, Text
from reason_engine.errors import SetupError
from reason_engine.training import trainers
from reason_engine.training.common.encode import Encoded, Encoder
from reason_engine.training.common.forward import body_of
from reason_engine.training.supervised.distill import SoftAnswers
from reason_engine.training.supervised.dpo import Preferences
from reason_engine.training.supervised.kto import Prospects
from reason_engine.training.supervised.process_reward import Processes
from reason_engine.training.supervised.reward import Outcomes
from reason_engine.training.supervised.sft import Answers
from reason_engine.types import Message
from tests.models import write_model

torch = pytest.importorskip("torch")
ASK = (Message("user", "How many?"),)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base") / "model", scale=1.0, num_hidden_layers=1)


@pytest.fixture
def parts(base: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)


def config(method: str, **changes: Any) -> Any:
    need = {"out": "o", "model": "m", "data": "d", "tokens": 1, "precision": "fp32"}
    return trainers.get(method).config.model_validate({**need, **changes})


def disturbed(model: Any) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def logp(model: Any, one: Encoded) -> float:
    with torch.no_grad():
        table = model(torch.tensor([one.ids])).logits[0].log_softmax(-1)
    places = [at for at, weight in enumerate(one.weights) if weight and at]
    return sum(float(table[at - 1, one.ids[at]]) for at in places)


def sigmoid(value: float) -> float:
    return 1 / (1 + exp(-value))


@pytest.mark.parametrize("smoothing, sft", [(0.0, 0.0), (0.2, 0.5)])
def test_dpo(parts: tuple[Any, Any], smoothing: float, sft: float) -> None:
    model, tokenizer = parts
    before = copy.deepcopy(model)
    made = Preferences(config("dpo", beta=0.3, smoothing=smoothing, sft=sft), model, tokenizer)
    disturbed(model)
    batch = made.encode([Preference(ASK, "seven", "none at all"), Preference(ASK, "2", "three")])
    loss, seen = made.loss(batch, body_of(model, False))
    expected, margins = 0.0, 0.0
    for pair in batch:
        better, worse = (0.3 * (logp(model, one) - logp(before, one)) for one in (pair.chosen, pair.rejected))
        z = better - worse
        margins += z
        expected -= (1 - smoothing) * log(sigmoid(z)) + smoothing * log(sigmoid(-z))
        expected -= sft * logp(model, pair.chosen) / sum(weight > 0 for weight in pair.chosen.weights)
    assert loss.item() == pytest.approx(expected, abs=1e-4)
    assert seen["margin"] == pytest.approx(margins, abs=1e-4) and abs(margins) > 0.01


def test_kto(parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    before = copy.deepcopy(model)
    made = Prospects(config("kto", beta=0.3, liked=1.2, disliked=0.7), model, tokenizer)
    disturbed(model)
    other = (Message("user", "Why?"),)
    rows = [Labelled(ASK, "seven", True), Labelled(other, "because", False), Labelled(ASK, "4", True)]
    batch, body = made.encode(rows), body_of(model, False)
    told = [tokenizer.decode(item.other.ids).removesuffix("<|im_end|>") for item in batch]
    assert [text.rpartition("\n")[2] for text in told] == ["because", "4", "seven"]
    assert made.total(batch, body) == 3

    def ratio(one: Encoded) -> float:
        return logp(model, one) - logp(before, one)

    point = max(0.0, sum(ratio(item.other) for item in batch) / 3)
    expected = 0.0
    for item in batch:
        gain = 0.3 * (ratio(item.own) - point)
        expected += 1.2 * (1 - sigmoid(gain)) if item.label else 0.7 * (1 - sigmoid(-gain))
    loss, seen = made.loss(batch, body)
    assert loss.item() == pytest.approx(expected, abs=1e-4)
    assert seen["baseline"] == pytest.approx(3 * point, abs=1e-3)


def test_distill(base: Path, parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    teacher = copy.deepcopy(model)
    made = SoftAnswers(config("distill", teacher=base, alpha=0.6, temperature=2.0), model, tokenizer)
    disturbed(model)
    batch = made.encode([Conversation((*ASK, Message("assistant", "seven")), weight=0.5)])
    loss, _ = made.loss(batch, body_of(model, False))
    (one,) = batch
    with torch.no_grad():
        own, said = (m(torch.tensor([one.ids])).logits[0] for m in (model, teacher))
    expected = 0.0
    for at in (at for at, weight in enumerate(one.weights) if weight):
        p, q = (said[at - 1] / 2).log_softmax(-1), (own[at - 1] / 2).log_softmax(-1)
        hard = -float(own[at - 1].log_softmax(-1)[one.ids[at]])
        expected += 0.5 * (0.6 * 4 * float((p.exp() * (p - q)).sum()) + 0.4 * hard)
    assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_reward(base: Path, parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    made = Outcomes(config("reward", model=base, margin=0.5, centre=0.1), model, tokenizer)
    batch = made.encode([Preference(ASK, "seven", "none at all")])
    values = []
    for one in (batch[0].chosen, batch[0].rejected):
        assert tokenizer.decode(one.ids).endswith("<|im_end|>\n")
        states = made.model.model(torch.tensor([one.ids])).last_hidden_state
        values.append(made.model.score(states[0, -1]).item())
    better, worse = values
    expected = -log(sigmoid(better - worse - 0.5)) + 0.1 * (better + worse) ** 2
    loss, _ = made.loss(batch, body_of(made.model, False))
    assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_process_reward(base: Path, parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    made = Processes(config("process-reward", model=base), model, tokenizer)
    batch = made.encode([Stepwise(ASK, ("one", "two"), (1.0, 0.25)), Stepwise(ASK, ("three",), (0.0,))])
    expected = 0.0
    for item in batch:
        states = made.model.model(torch.tensor([item.ids])).last_hidden_state[0]
        for place, label in zip(item.places, item.labels, strict=True):
            value = made.model.score(states[place]).item()
            expected -= label * log(sigmoid(value)) + (1 - label) * log(sigmoid(-value))
    loss, _ = made.loss(batch, body_of(made.model, False))
    assert loss.item() == pytest.approx(expected, abs=1e-4) and made.total(batch, None) == 3


def test_process_reward_that_goes_on_speaking(base: Path, parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    made = {lm: Processes(config("process-reward", model=base, lm=lm), model, tokenizer) for lm in (0.0, 0.5)}
    made[0.5].model = made[0.0].model
    rows = [Stepwise(ASK, ("one", "two", "six"), (1.0, 0.6, 0.0)), Stepwise(ASK, ("three",), (0.0,))]
    batch = made[0.5].encode(rows)
    said = [tokenizer.decode(item.ids[slice(*item.right)]) for item in batch]
    assert said == ["one\n\ntwo", ""]
    start, end = batch[0].right
    weights = [float(start <= at < end) for at in range(len(batch[0].ids))]
    spoken = -logp(model, Encoded(batch[0].ids, weights)) / (end - start)
    plain, joint = (one.loss(batch, body_of(one.model, False)) for one in made.values())
    assert joint[0].item() == pytest.approx(plain[0].item() + 0.5 * 3 * spoken, abs=1e-4)
    assert joint[1]["lm_loss"] == pytest.approx(spoken, abs=1e-4)
    (each, _) = Processes(config("process-reward", model=base, each="token"), model, tokenizer).encode(rows)
    places = dict(zip(each.places, each.labels, strict=True))
    read = [tokenizer.decode([each.ids[place] for place in places if places[place] == x]) for x in (1, 0.6, 0)]
    assert read == ["one", "\n\ntwo", "\n\nsix"] and [places[at] for at in batch[0].places] == [1, 0.6, 0]
    with pytest.raises(ValueError, match="lm: a head alone"):
        config("process-reward", lm=0.5, train="head")


def test_plain_text_is_learned_whole_in_pieces(parts: tuple[Any, Any]) -> None:
    _, tokenizer = parts
    pieces = Encoder(tokenizer, 16).encode([Text("x" * 40)])
    assert [len(piece.ids) for piece in pieces] == [16, 16, 9]
    assert all(piece.weights == [0.0] + [1.0] * (len(piece.ids) - 1) for piece in pieces)
    assert "".join(tokenizer.decode(piece.ids) for piece in pieces) == "x" * 40 + "<|im_end|>"


def test_conversations_of_every_shape(parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    made = Answers(config("sft"), model, tokenizer)
    turns = (Message("system", "Be brief."), *ASK, Message("assistant", "seven"))
    (one,) = made.encode([Conversation(turns, skip=((0, 2),))])
    taught = [i for i, weight in zip(one.ids, one.weights, strict=True) if weight]
    assert tokenizer.decode(taught) == "ven<|im_end|>"
    assert tokenizer.decode(one.ids).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    tokenizer.chat_template = "{{ raise_exception('no system turn') }}"
    with pytest.raises(SetupError, match="refuses a row: no system turn"):
        made.encode([Conversation(turns)])


def test_reasoning_is_learned_where_the_template_writes_it(parts: tuple[Any, Any]) -> None:
    _, tokenizer = parts
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{% if m.reasoning %}<think>{{ m.reasoning }}</think>{% endif %}"
        "{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    turns = (*ASK, Message("assistant", "7", reasoning="3 + 4"))
    (one,) = Encoder(tokenizer, 99).encode([Conversation(turns)])
    taught = [i for i, weight in zip(one.ids, one.weights, strict=True) if weight]
    assert tokenizer.decode(taught) == "<think>3 + 4</think>7<|im_end|>"
