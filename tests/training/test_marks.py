"""Where a template puts an answer, found by rendering: templates of many makers, and one of which it cannot be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from jinja2 import Environment

from reason_engine.data.formats.rows import Conversation
from reason_engine.errors import SetupError
from reason_engine.training.common.encode import Encoder
from reason_engine.training.common.models import load_tokenizer
from reason_engine.training.text.marks import AnswerMarks, find_marks
from reason_engine.types import Message
from tests.models import write_model

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OWN_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a tester.<|im_end|>\n{% endif %}" + CHATML
)
INST = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
TURNS = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
EMPTY_THOUGHT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPEN_THOUGHT = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
NO_END = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
SPECIALS = ("<|im_start|>", "<|im_end|>", "</s>", "<start_of_turn>", "<end_of_turn>", "<eos>")


def marks(source: str, eos: str) -> AnswerMarks:
    def fail(message: str) -> None:
        raise SetupError(f"the chat template refuses a row: {message}")

    environment = Environment()
    environment.globals["raise_exception"] = fail
    template = environment.from_string(source)

    def render(turns: Sequence[Mapping[str, str]], mark: bool) -> str:
        return template.render(messages=turns, add_generation_prompt=mark)

    return find_marks(render, SPECIALS, eos, source)


@pytest.mark.parametrize(
    ("source", "eos", "lead", "end", "quirks"),
    [
        (CHATML, "<|im_end|>", "", "<|im_end|>", []),
        (OWN_SYSTEM, "<|im_end|>", "", "<|im_end|>", ["adds a system turn of its own", "You are a tester."]),
        (INST, "</s>", " ", " </s>", ["drops a system turn"]),
        (TURNS, "<eos>", "", "<end_of_turn>", ["not with the tokenizer's <eos>", "refuses a system turn"]),
        (EMPTY_THOUGHT, "<|im_end|>", "", "<|im_end|>", ["before a past answer"]),
        (OPEN_THOUGHT, "<|im_end|>", "", "<|im_end|>", ["opens '<think>"]),
        (NO_END, "</s>", "assistant: ", "</s>", ["writes no end"]),
        (CHATML + "{# strftime_now #}", "<|im_end|>", "", "<|im_end|>", ["day's date"]),
    ],
)
def test_marks_of_many_makers(source: str, eos: str, lead: str, end: str, quirks: list[str]) -> None:
    found = marks(source, eos)
    said = "\n".join(found.quirks)
    assert (found.lead, found.end) == ("" if lead.strip() else lead, end)
    for part in quirks:
        assert part in said
    assert bool(quirks) == bool(found.quirks)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (CHATML.replace("{{ m.content }}", "{{ m.content | upper }}"), "does not write an answer as it stands"),
        (
            "{% for m in messages %}{% if m.role == 'user' %}Q {{ m.content }} {{ 'A' if loop.last else 'B' }}"
            "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}",
            "an answer's place cannot be found",
        ),
        (
            CHATML.replace("{{ m.content }}<", "{{ m.content }}{% if ':' in m.content %} !{% endif %}<"),
            "one answer otherwise than another",
        ),
    ],
)
def test_a_template_whose_answers_cannot_be_found_is_named(source: str, said: str) -> None:
    with pytest.raises(SetupError, match=f"chat template.*{said}.*chat_template.jinja"):
        marks(source, "<|im_end|>")


def test_what_is_learned_is_what_the_template_writes(tmp_path: Path) -> None:
    """The lead and the end of a template that is no ChatML are in the loss; the question is not."""
    tokenizer = load_tokenizer(write_model(tmp_path / "m"))
    tokenizer.chat_template = INST.replace("</s>", tokenizer.eos_token)
    turns = (Message("user", "one?"), Message("assistant", "two"))
    (one,) = Encoder(tokenizer, 99).encode([Conversation(turns, skip=((0, 1),))])
    learned = [token for token, weight in zip(one.ids, one.weights, strict=True) if weight]
    text = tokenizer.decode(one.ids)
    assert text == f"[INST] one? [/INST] two {tokenizer.eos_token}"
    assert tokenizer.decode(learned).replace(" ", "") == f"wo{tokenizer.eos_token}"
