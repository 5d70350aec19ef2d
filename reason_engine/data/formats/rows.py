"""Typed rows: what a trainer reads, whatever format the file had. All are frozen.

    Conversation   messages, prompt/completion, alpaca, sharegpt     sft, distill
    Preference     prompt with a chosen and a rejected answer        dpo, reward, online-dpo
    Labelled       prompt with one answer, liked or not              kto
    Stepwise       prompt with steps and a label each                process-reward
    Reference      prompt with the right answer                      grpo, rloo, ppo, synthesis
    Question       prompt alone                                      synthesis
    Text           plain text                                        domain corpora, calibration

`to_json` writes each in its plainest format, which `readers` reads back as an equal row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reason_engine.answers import find
from reason_engine.types import Message, Turns


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages whose last is the assistant's, which is what is learned. `weight` multiplies its loss; `skip` are
    character ranges of its content that teach nothing."""

    messages: Turns
    family: str = ""
    weight: float = 1.0
    skip: tuple[tuple[int, int], ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def prompt(self) -> Turns:
        return self.messages[:-1]

    @property
    def answer(self) -> Message:
        return self.messages[-1]


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one prompt, the better one first."""

    prompt: Turns
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Labelled:
    """One answer, and whether it is wanted."""

    prompt: Turns
    completion: str
    label: bool


@dataclass(frozen=True, slots=True)
class Stepwise:
    """A solution in steps; `labels[i]` in [0, 1] says how right step i is."""

    prompt: Turns
    steps: tuple[str, ...]
    labels: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """A problem whose answer is known. `solution` is a worked one where the file has it, `meta` its other columns."""

    prompt: Turns
    answer: str
    solution: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Question:
    """A problem without an answer."""

    prompt: Turns


@dataclass(frozen=True, slots=True)
class Text:
    """Running text."""

    text: str


Row = Conversation | Preference | Labelled | Stepwise | Reference | Question | Text


def said_aloud(row: Reference) -> Conversation:
    """The problem with its solution, or its answer, as the assistant's turn. The notes between `<<` and `>>` that
    GSM8K's solutions have for a calculator are left out."""
    text = re.sub(r"<<[^<>\n]*>>", "", row.answer if row.solution is None else row.solution)
    return Conversation((*row.prompt, Message("assistant", text)))


def question_of(row: Row) -> str:
    """The last user turn; the text itself of a row that is plain text."""
    return row.text if isinstance(row, Text) else last_user_turn(row.prompt)[1].content


def with_question(row: Row, question: str) -> Row:
    """The row with another last user turn."""
    if isinstance(row, Text):
        return replace(row, text=question)
    place, turn = last_user_turn(row.prompt)
    turns = (*row.prompt[:place], replace(turn, content=question), *row.prompt[place + 1 :])
    if isinstance(row, Conversation):
        return replace(row, messages=(*turns, row.answer))
    return replace(row, prompt=turns)


def prompt_text(row: Row) -> str:
    """All that stands before the answer; empty for plain text."""
    return "" if isinstance(row, Text) else "\n".join(turn.content for turn in row.prompt if turn.content)


def answer_text(row: Row) -> str:
    """All that is learned, judged or compared."""
    match row:
        case Conversation():
            return "\n".join(part for part in (row.answer.reasoning, row.answer.content) if part)
        case Preference():
            return f"{row.chosen}\n{row.rejected}"
        case Labelled():
            return row.completion
        case Stepwise():
            return "\n".join(row.steps)
        case Reference():
            return row.answer if row.solution is None else row.solution
        case Question():
            return ""
        case Text():
            return row.text


def known_answer(row: Row) -> str | None:
    """The right answer, where the row tells it."""
    match row:
        case Reference():
            return row.answer
        case Conversation():
            return find(row.answer.content)
        case Labelled():
            return find(row.completion) if row.label else None
        case _:
            return None


def to_json(row: Row) -> dict[str, Any]:
    """The row as the mapping that stands in a file; what says nothing is left out."""
    match row:
        case Conversation():
            weight = row.weight if row.weight != 1.0 else None
            extra = {
                "family": row.family,
                "weight": weight,
                "skip": list(map(list, row.skip)),
                "tools": list(row.tools),
            }
            found: dict[str, Any] = {"messages": [turn_json(turn) for turn in row.messages]}
            return found | {key: value for key, value in extra.items() if value}
        case Preference():
            return {"prompt": _prompt(row.prompt), "chosen": row.chosen, "rejected": row.rejected}
        case Labelled():
            return {"prompt": _prompt(row.prompt), "completion": row.completion, "label": row.label}
        case Stepwise():
            return {"prompt": _prompt(row.prompt), "completions": list(row.steps), "labels": list(row.labels)}
        case Reference():
            worked = {} if row.solution is None else {"solution": row.solution}
            return {**row.meta, "prompt": _prompt(row.prompt), "answer": row.answer, **worked}
        case Question():
            return {"prompt": _prompt(row.prompt)}
        case Text():
            return {"text": row.text}


def turn_json(turn: Message) -> dict[str, Any]:
    """One message in OpenAI's shape."""
    found: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.reasoning:
        found["reasoning"] = turn.reasoning
    if turn.tool_calls:
        calls = [(call.id, {"name": call.name, "arguments": call.arguments}) for call in turn.tool_calls]
        found["tool_calls"] = [{"id": id, "type": "function", "function": call} for id, call in calls]
    return found | {key: value for key in ("tool_call_id", "name") if (value := getattr(turn, key))}


def _prompt(turns: Sequence[Message]) -> Any:
    plain = len(turns) == 1 and turns[0] == Message("user", turns[0].content)
    return turns[0].content if plain else [turn_json(turn) for turn in turns]


def last_user_turn(turns: Turns) -> tuple[int, Message]:
    """Its place and itself."""
    return next((place, turn) for place, turn in reversed(list(enumerate(turns))) if turn.role == "user")
