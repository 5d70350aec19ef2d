"""One row of each format from the mapping that stands in a file, and the fields by which a format is known.

A field at fault raises `Bad` with its name; nothing is repaired silently. Formats are tried in the order of `FORMATS`.
`PROMPT` is found by no field, only told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from reason_engine.data.formats.rows import (
    Conversation,
    Labelled,
    Preference,
    Question,
    Reference,
    Row,
    Stepwise,
    Text,
    Turns,
)
from reason_engine.data.formats.turns import Bad, blank, in_order, text, turns, turns_of
from reason_engine.types import Message

Raw = Mapping[str, Any]


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
    found = turns(raw["messages"], "messages")
    if found[-1].role != "assistant":
        raise Bad(f"messages[{len(found) - 1}]", "the last message must be the assistant's")
    return _conversation(found, raw)


def _sharegpt(raw: Raw) -> Row:
    key = cast(str, _key(raw, _SHAREGPT))
    found = turns(raw[key], key)
    if raw.get("system"):
        found = in_order((Message("system", text(raw, "system")), *found), key)
    if found[-1].role != "assistant":
        raise Bad(f"{key}[{len(found) - 1}]", "the last turn must be the model's")
    return _conversation(found, raw)


def _alpaca(raw: Raw) -> Row:
    found: list[Message] = [Message("system", text(raw, "system"))] if raw.get("system") else []
    history = raw.get("history") or ()
    if not isinstance(history, (list, tuple)):
        raise Bad("history", "must be a list of [question, answer]")
    for place, pair in enumerate(cast("list[Any]", history)):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(t, str) for t in pair):
            raise Bad(f"history[{place}]", "must be [question, answer]")
        found += [Message("user", pair[0]), Message("assistant", pair[1])]
    answer = blank(text(raw, "output"), "output")
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
        prompt = _ends_with_user(turns(raw[key], key), key)
    else:
        prompt = _prompt(raw)
    return _differ(
        Preference(prompt, _answer(raw, "chosen"), _answer(raw, "rejected", empty=True, after=prompt))
    )


def _implicit(raw: Raw) -> Row:
    """Both answers as whole conversations: what they share is the prompt."""
    chosen, rejected = (turns(raw[key], key) for key in ("chosen", "rejected"))
    if chosen[:-1] != rejected[:-1] or len(chosen) < 2:
        raise Bad("prompt", "is missing, and `chosen` and `rejected` do not share one")
    for key, found in (("chosen", chosen), ("rejected", rejected)):
        if found[-1].role != "assistant":
            raise Bad(f"{key}[{len(found) - 1}]", "the last message must be the assistant's")
    return _differ(Preference(chosen[:-1], blank(chosen[-1].content, "chosen"), rejected[-1].content))


def _labelled(raw: Raw) -> Row:
    key, label = cast(str, _key(raw, _COMPLETION)), raw["label"]
    if isinstance(label, str) and label.casefold() in _LABELS:
        label = _LABELS[label.casefold()]
    if label not in (True, False):
        raise Bad("label", f"must be true or false, not {raw['label']!r}")
    return Labelled(_prompt(raw), _answer(raw, key), bool(label))


def _stepwise(raw: Raw) -> Row:
    key = cast(str, _key(raw, _STEPS))
    steps, labels = raw[key], raw["labels"]
    if not isinstance(steps, list) or not steps:
        raise Bad(key, "must be a list of steps with at least one")
    for place, step in enumerate(steps):
        if not isinstance(step, str) or not step.strip():
            raise Bad(f"{key}[{place}]", "must be text that is not empty")
    if not isinstance(labels, list) or len(labels) != len(steps):
        count = len(labels) if isinstance(labels, list) else "no list"
        raise Bad("labels", f"must hold one label a step: {len(steps)} steps, {count}")
    for place, label in enumerate(labels):
        if not isinstance(label, (bool, int, float)) or not 0 <= label <= 1:
            raise Bad(f"labels[{place}]", f"must be true, false or a number from 0 to 1, not {label!r}")
    return Stepwise(_prompt(raw), tuple(steps), tuple(float(label) for label in labels))


def _reference(raw: Raw) -> Row:
    """A rationale that ends in `#### x`, as in GSM8K, is a solution with the answer x."""
    value = raw["answer"]
    if type(value) is int or (isinstance(value, float) and math.isfinite(value)):
        value = repr(value)
    if not isinstance(value, str):
        raise Bad("answer", "must be text or a number")
    answer, solution = blank(value, "answer"), raw.get("solution")
    if solution is not None and not isinstance(solution, str):
        raise Bad("solution", "must be text")
    before, marks, last = answer.rpartition("\n#### ")
    if marks and solution is None and before.strip():
        answer, solution = blank(last, "answer"), value
    known = {cast(str, _key(raw, _PROMPT)), "answer", "solution"}
    meta = {key: entry for key, entry in raw.items() if key not in known}
    return Reference(_prompt(raw), answer.strip(), solution, meta)


def _text(raw: Raw) -> Row:
    return Text(blank(text(raw, "text"), "text"))


def _conversation(found: Turns, raw: Raw) -> Conversation:
    weight, skip, tools = raw.get("weight"), raw.get("skip") or (), raw.get("tools") or ()
    if weight is None:
        weight = 1.0
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= 1e6:
        raise Bad("weight", f"must be a number from 0 to 1e6, not {weight!r}")
    spans: list[tuple[int, int]] = []
    for place, span in enumerate(cast("list[Any]", skip if isinstance(skip, (list, tuple)) else [skip])):
        if not isinstance(span, (list, tuple)) or len(span) != 2 or not all(type(end) is int for end in span):
            raise Bad(f"skip[{place}]", "must be [start, end]")
        if not 0 <= span[0] <= span[1] <= len(found[-1].content):
            raise Bad(f"skip[{place}]", f"{list(span)} lies outside the last message")
        spans.append((span[0], span[1]))
    if not isinstance(tools, (list, tuple)) or not all(isinstance(tool, dict) for tool in tools):
        raise Bad("tools", "must be a list of objects")
    return Conversation(found, str(raw.get("family") or ""), float(weight), tuple(spans), tuple(tools))


def _prompt(raw: Raw) -> Turns:
    key = cast(str, _key(raw, _PROMPT))
    if isinstance(raw[key], str):
        system = (Message("system", text(raw, "system")),) if raw.get("system") else ()
        return (*system, Message("user", blank(raw[key], key)))
    return _ends_with_user(turns(raw[key], key), key)


def _ends_with_user(found: Turns, key: str) -> Turns:
    if found[-1].role not in ("user", "tool"):
        raise Bad(f"{key}[{len(found) - 1}]", "the prompt must end with the user's turn")
    return found


def _instruction(raw: Raw) -> str:
    given = text(raw, "input") if raw.get("input") is not None else ""
    return "\n".join(part for part in (blank(text(raw, "instruction"), "instruction"), given) if part)


def _answer(raw: Raw, key: str, *, empty: bool = False, after: Turns = ()) -> str:
    """One answer: text, a message, or a list that holds one message or the prompt and one more."""
    value = raw[key]
    if isinstance(value, str):
        return value if empty else blank(value, key)
    found = turns_of(value if isinstance(value, list) else [value], key)
    if after and found[: len(after)] == after:
        found = found[len(after) :]
    if len(found) > 1 and all(turn.role != "assistant" for turn in found[:-1]):
        found = found[-1:]
    if len(found) != 1 or found[0].role != "assistant":
        raise Bad(key, "must be text or one message of the assistant")
    return found[0].content if empty else blank(found[0].content, key)


def _differ(row: Preference) -> Preference:
    if row.chosen.strip() == row.rejected.strip():
        raise Bad("rejected", "is the same as `chosen`")
    return row


def _key(raw: Raw, group: tuple[str, ...]) -> str | None:
    return next((key for key in group if raw.get(key) is not None), None)


_PROMPT = ("prompt", "question", "problem", "query")
_COMPLETION = ("completion", "response")
_SHAREGPT = ("conversations", "conversation")
_STEPS = ("completions", "steps")
_LABELS = {"true": True, "false": False, "1": True, "0": False}

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
"""Problems without answers. Every row with a prompt has its fields, so it must be told."""
