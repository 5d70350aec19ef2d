"""One row of each format from the mapping that stands in a file, and the fields by which a format is known.

A field at fault raises `InvalidField` with its name; nothing is repaired silently. Formats are tried in the order of
`FORMATS`; `PROMPT` must be asked for by name. Turns are OpenAI's messages or ShareGPT's `from`/`value`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from reason_engine.data.formats.rows import Conversation, Labelled, Preference, Question, Reference, Row, Stepwise, Text
from reason_engine.types import Message, Role, ToolCall, Turns

Raw = Mapping[str, Any]


class InvalidField(ValueError):
    """A row cannot be read: the field and what is wrong with it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"`{field}` {message}" if field else message)
        self.field, self.message = field, message


@dataclass(frozen=True, slots=True)
class Format:
    """`keys`: of each group a row has one."""

    name: str
    kind: type[Row]
    keys: tuple[tuple[str, ...], ...]
    parse: Callable[[Raw], Row]

    def missing(self, raw: Raw) -> list[str]:
        """The fields that a row of this format would need and this one lacks."""
        return ["/".join(group) for group in self.keys if _key(raw, group) is None]


def _messages(raw: Raw) -> Row:
    found = _turns(raw["messages"], "messages")
    return _conversation(_ends_with(found, "messages", _ASSISTANT, "the last message must be the assistant's"), raw)


def _sharegpt(raw: Raw) -> Row:
    key = cast(str, _key(raw, _SHAREGPT))
    found = _turns(raw[key], key)
    if raw.get("system"):
        found = _in_order((Message("system", _text_field(raw, "system")), *found), key)
    return _conversation(_ends_with(found, key, _ASSISTANT, "the last turn must be the model's"), raw)


def _alpaca(raw: Raw) -> Row:
    found: list[Message] = [Message("system", _text_field(raw, "system"))] if raw.get("system") else []
    history = raw.get("history") or ()
    if not isinstance(history, (list, tuple)):
        raise InvalidField("history", "must be a list of [question, answer]")
    for place, pair in enumerate(cast("list[Any]", history)):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(t, str) for t in pair):
            raise InvalidField(f"history[{place}]", "must be [question, answer]")
        found += [Message("user", pair[0]), Message("assistant", pair[1])]
    answer = _not_blank(_text_field(raw, "output"), "output")
    return _conversation((*found, Message("user", _instruction(raw)), Message("assistant", answer)), raw)


def _completion(raw: Raw) -> Row:
    key = cast(str, _key(raw, _COMPLETION))
    return _conversation((*_prompt(raw), Message("assistant", _answer(raw, key))), raw)


def _preference(raw: Raw) -> Row:
    if _key(raw, (*_PROMPT, "instruction", *_SHAREGPT)) is None:
        return _implicit(raw)
    if raw.get("instruction") is not None:
        prompt: Turns = (Message("user", _instruction(raw)),)
    elif (key := _key(raw, _SHAREGPT)) is not None:
        prompt = _ends_with_user(_turns(raw[key], key), key)
    else:
        prompt = _prompt(raw)
    rejected = _answer(raw, "rejected", empty=True, after=prompt)
    return _differ(Preference(prompt, _answer(raw, "chosen"), rejected))


def _implicit(raw: Raw) -> Row:
    """Both answers as whole conversations: what they share is the prompt."""
    chosen, rejected = (_turns(raw[key], key) for key in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1] or len(chosen) < 2:
        raise InvalidField("prompt", "is missing, and `chosen` and `rejected` do not share one")
    for key, found in (("chosen", chosen), ("rejected", rejected)):
        _ends_with(found, key, _ASSISTANT, "the last message must be the assistant's")
    return _differ(Preference(chosen[:-1], _not_blank(chosen[-1].content, "chosen"), rejected[-1].content))


def _labelled(raw: Raw) -> Row:
    key, label = cast(str, _key(raw, _COMPLETION)), raw["label"]
    if isinstance(label, str) and label.casefold() in _LABELS:
        label = _LABELS[label.casefold()]
    if label not in (True, False):
        raise InvalidField("label", f"must be true or false, not {raw['label']!r}")
    return Labelled(_prompt(raw), _answer(raw, key), bool(label))


def _stepwise(raw: Raw) -> Row:
    key = cast(str, _key(raw, _STEPS))
    steps, labels = raw[key], raw["labels"]
    if not isinstance(steps, list) or not steps:
        raise InvalidField(key, "must be a list of steps with at least one")
    for place, step in enumerate(steps):
        if not isinstance(step, str) or not step.strip():
            raise InvalidField(f"{key}[{place}]", "must be text that is not empty")
    if not isinstance(labels, list) or len(labels) != len(steps):
        count = len(labels) if isinstance(labels, list) else "no list"
        raise InvalidField("labels", f"must hold one label a step: {len(steps)} steps, {count}")
    for place, label in enumerate(labels):
        if not isinstance(label, (bool, int, float)) or not 0 <= label <= 1:
            raise InvalidField(f"labels[{place}]", f"must be true, false or a number from 0 to 1, not {label!r}")
    return Stepwise(_prompt(raw), tuple(steps), tuple(float(label) for label in labels))


def _reference(raw: Raw) -> Row:
    """A rationale that ends in `#### x`, as in GSM8K, is a solution with the answer x."""
    value = raw["answer"]
    if type(value) is int or (isinstance(value, float) and math.isfinite(value)):
        value = repr(value)
    if not isinstance(value, str):
        raise InvalidField("answer", "must be text or a number")
    answer, solution = _not_blank(value, "answer"), raw.get("solution")
    if solution is not None and not isinstance(solution, str):
        raise InvalidField("solution", "must be text")
    before, marks, last = answer.rpartition("\n#### ")
    if marks and solution is None and before.strip():
        answer, solution = _not_blank(last, "answer"), value
    known = {cast(str, _key(raw, _PROMPT)), "answer", "solution"}
    meta = {key: entry for key, entry in raw.items() if key not in known}
    return Reference(_prompt(raw), answer.strip(), solution, meta)


def _text(raw: Raw) -> Row:
    return Text(_not_blank(_text_field(raw, "text"), "text"))


def _conversation(found: Turns, raw: Raw) -> Conversation:
    skip, tools = raw.get("skip") or (), raw.get("tools") or ()
    weight = 1.0 if raw.get("weight") is None else raw["weight"]
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1e6:
        raise InvalidField("weight", f"must be a number from 0 to 1e6, not {weight!r}")
    spans: list[tuple[int, int]] = []
    for place, span in enumerate(cast("list[Any]", skip if isinstance(skip, (list, tuple)) else [skip])):
        if not isinstance(span, (list, tuple)) or len(span) != 2 or not all(type(end) is int for end in span):
            raise InvalidField(f"skip[{place}]", "must be [start, end]")
        if not 0 <= span[0] <= span[1] <= len(found[-1].content):
            raise InvalidField(f"skip[{place}]", f"{list(span)} lies outside the last message")
        spans.append((span[0], span[1]))
    if not isinstance(tools, (list, tuple)) or not all(isinstance(tool, dict) for tool in tools):
        raise InvalidField("tools", "must be a list of objects")
    return Conversation(found, str(raw.get("family") or ""), float(weight), tuple(spans), tuple(tools))


def _prompt(raw: Raw) -> Turns:
    key = cast(str, _key(raw, _PROMPT))
    if isinstance(raw[key], str):
        system = (Message("system", _text_field(raw, "system")),) if raw.get("system") else ()
        return (*system, Message("user", _not_blank(raw[key], key)))
    return _ends_with_user(_turns(raw[key], key), key)


def _ends_with_user(found: Turns, key: str) -> Turns:
    return _ends_with(found, key, ("user", "tool"), "the prompt must end with the user's turn")


def _ends_with(found: Turns, key: str, roles: tuple[str, ...], message: str) -> Turns:
    if found[-1].role not in roles:
        raise InvalidField(f"{key}[{len(found) - 1}]", message)
    return found


def _instruction(raw: Raw) -> str:
    instruction = _not_blank(_text_field(raw, "instruction"), "instruction")
    given = _text_field(raw, "input") if raw.get("input") is not None else ""
    return f"{instruction}\n{given}" if given else instruction


def _answer(raw: Raw, key: str, *, empty: bool = False, after: Turns = ()) -> str:
    """One answer: text, a message, or a list that holds one message or the prompt and one more."""
    value = raw[key]
    if isinstance(value, str):
        return value if empty else _not_blank(value, key)
    found = _messages_of(value if isinstance(value, list) else [value], key)
    if after and found[: len(after)] == after:
        found = found[len(after) :]
    if len(found) > 1 and all(turn.role != "assistant" for turn in found[:-1]):
        found = found[-1:]
    if len(found) != 1 or found[0].role != "assistant":
        raise InvalidField(key, "must be text or one message of the assistant")
    return found[0].content if empty else _not_blank(found[0].content, key)


def _differ(row: Preference) -> Preference:
    if row.chosen.strip() == row.rejected.strip():
        raise InvalidField("rejected", "is the same as `chosen`")
    return row


def _key(raw: Raw, group: tuple[str, ...]) -> str | None:
    return next((key for key in group if raw.get(key) is not None), None)


def _turns(value: Any, key: str) -> Turns:
    """A list of turns in an order that a chat template can render."""
    found = _in_order(_messages_of(value, key), key)
    if not any(turn.role == "user" for turn in found):
        raise InvalidField(key, "has no turn of the user")
    return found


def _messages_of(value: Any, key: str) -> Turns:
    """A list of turns in whatever order."""
    if not isinstance(value, list) or not value:
        raise InvalidField(key, "must be a list of messages with at least one")
    return tuple(_turn(entry, f"{key}[{place}]") for place, entry in enumerate(value))


def _in_order(found: Sequence[Message], key: str) -> Turns:
    """System first, then user and assistant in turn; tool results after the call."""
    before = ""
    for place, turn in enumerate(found):
        if turn.role not in _AFTER[before]:
            where = f"after a turn of the {before}" if before else "at the beginning"
            raise InvalidField(f"{key}[{place}]", f"a turn of the {turn.role} cannot stand {where}")
        before = "system" if turn.role == "developer" else turn.role
    return tuple(found)


def _text_field(raw: Mapping[str, Any], key: str) -> str:
    """A field that must be text."""
    value = raw.get(key)
    if not isinstance(value, str):
        raise InvalidField(key, f"must be text, not {_kind(value)}")
    return value


def _not_blank(value: str, key: str) -> str:
    """The text unless it is empty."""
    if not value.strip():
        raise InvalidField(key, "is empty")
    return value


def _turn(entry: Any, where: str) -> Message:
    if not isinstance(entry, dict):
        raise InvalidField(where, f"must be a message, not {_kind(entry)}")
    share = "from" in entry and "role" not in entry
    name_key, text_key = ("from", "value") if share else ("role", "content")
    speaker = entry.get(name_key)
    role = _NAMES.get(speaker.casefold()) if isinstance(speaker, str) else None
    if role is None:
        raise InvalidField(f"{where}.{name_key}", f"{speaker!r} is no role; one of: {', '.join(_NAMES)}")
    content, calls = entry.get(text_key), _calls(entry.get("tool_calls"), where)
    if content is None and calls:
        content = ""
    if isinstance(content, list):
        content = _joined(content, where)
    if not isinstance(content, str):
        raise InvalidField(f"{where}.{text_key}", f"must be text, not {_kind(content)}")
    reasoning = entry.get("reasoning") or entry.get("reasoning_content")
    if reasoning is not None and not isinstance(reasoning, str):
        raise InvalidField(f"{where}.reasoning", "must be text")
    if role in ("user", "assistant") and not calls and not reasoning:
        _not_blank(content, f"{where}.{text_key}")
    call_id, name = (str(value) if (value := entry.get(key)) else None for key in ("tool_call_id", "name"))
    return Message(role, content, reasoning, calls, call_id, name)


def _joined(parts: list[Any], where: str) -> str:
    """OpenAI's content parts, where all of them are text."""
    for place, part in enumerate(parts):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise InvalidField(f"{where}.content[{place}]", "only parts of text can be read")
    return "".join(part["text"] for part in parts)


def _calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    found: list[ToolCall] = []
    for place, call in enumerate(value if isinstance(value, list) else ()):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InvalidField(f"{where}.tool_calls[{place}].function.name", "must be text")
        arguments = function.get("arguments", "{}")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        found.append(ToolCall(str(call.get("id") or f"call-{place}"), function["name"], arguments))
    return tuple(found)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")


_ASSISTANT = ("assistant",)
_PROMPT = ("prompt", "question", "problem", "query")
_COMPLETION = ("completion", "response")
_SHAREGPT = ("conversations", "conversation")
_STEPS = ("completions", "steps")
_LABELS = {"true": True, "false": False, "1": True, "0": False}
_NAMES: dict[str, Role] = {
    "system": "system", "developer": "developer", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "model": "assistant", "chatgpt": "assistant", "function_call": "assistant",
    "tool": "tool", "observation": "tool", "function": "tool", "function_response": "tool",
}  # fmt: skip
_AFTER: Mapping[str, tuple[str, ...]] = {
    "": ("system", "developer", "user"), "system": ("user",), "user": ("assistant",),
    "assistant": ("user", "tool"), "tool": ("assistant", "tool"),
}  # fmt: skip

FORMATS: tuple[Format, ...] = (
    Format("preference", Preference, (("chosen",), ("rejected",)), _preference),
    Format("stepwise", Stepwise, (_PROMPT, _STEPS, ("labels",)), _stepwise),
    Format("labelled", Labelled, (_PROMPT, _COMPLETION, ("label",)), _labelled),
    Format("messages", Conversation, (("messages",),), _messages),
    Format("sharegpt", Conversation, (_SHAREGPT,), _sharegpt),
    Format("alpaca", Conversation, (("instruction",), ("output",)), _alpaca),
    Format("prompt+completion", Conversation, (_PROMPT, _COMPLETION), _completion),
    Format("prompt+answer", Reference, (_PROMPT, ("answer",)), _reference),
    Format("text", Text, (("text",),), _text),
)
PROMPT = Format("prompt", Question, (_PROMPT,), lambda raw: Question(_prompt(raw)))
"""Problems without answers. Every row with a prompt has its fields, so it must be asked for."""
