"""How thinking is turned on and off in a template: found by rendering it both ways and comparing.

A switch is a name that the template reads (`enable_thinking`, `thinking`, `thinking_budget`, `reasoning_effort`) or a
word in the system turn (`/no_think`, "detailed thinking off"). None of them: the model always thinks, or never.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reason_engine.engines.chat.template import Template, Turn


@dataclass(frozen=True, slots=True)
class Switch:
    """What is passed to the template, or said in its system turn, to think or not. `default`: what it does by itself,
    where the template tells."""

    name: str
    on: Mapping[str, Any] = field(default_factory=dict[str, Any])
    off: Mapping[str, Any] = field(default_factory=dict[str, Any])
    words: tuple[str, str] | None = None
    default: bool | None = None

    def names(self, think: bool) -> Mapping[str, Any]:
        """What the template gets."""
        return self.on if think else self.off

    def spoken(self, turns: Sequence[Turn], think: bool) -> list[Turn]:
        """The turns with the word that switches, where it is a word."""
        if self.words is None:
            return list(turns)
        word = self.words[0 if think else 1]
        if turns and turns[0]["role"] == "system":
            said = turns[0]["content"]
            both = f"{said}\n{word}".strip() if isinstance(said, str) else [*said, {"type": "text", "text": word}]
            return [{**turns[0], "content": both}, *turns[1:]]
        return [{"role": "system", "content": word}, *turns]


def find_switch(template: Template, turns: Sequence[Turn]) -> Switch | None:
    """The first switch that changes how these turns are rendered."""
    plain = template.tried(turns)
    for name, on, off in NAMES:
        if name not in template.source or (isinstance(off, str) and not _quoted(off, template.source)):
            continue
        texts = [template.tried(turns, names={name: value}) for value in (on, off)]
        if None not in texts and texts[0] != texts[1]:
            return Switch(name, {name: on}, {name: off}, default=_default(plain, texts))
    for words in WORDS:
        if words[1] not in template.source:
            continue
        switch = Switch(words[1], words=words)
        texts = [template.tried(switch.spoken(turns, think)) for think in (True, False)]
        if None not in texts and texts[0] != texts[1]:
            return Switch(words[1], words=words, default=_said(plain, texts, words))
    return None


def _quoted(value: str, source: str) -> bool:
    """Whether the template compares with this text."""
    return any(f"{mark}{value}{mark}" in source for mark in ("'", '"'))


def _default(plain: str | None, texts: Sequence[str | None]) -> bool | None:
    return None if plain is None or plain not in texts else plain == texts[0]


def _said(plain: str | None, texts: Sequence[str | None], words: tuple[str, str]) -> bool | None:
    """By how the prompt ends: the word itself may stand in the text."""
    if plain is None:
        return None
    ends = [(text or "")[-END:] for text in texts]
    return None if ends[0] == ends[1] else plain[-END:] == ends[0]


END = 24
NAMES: tuple[tuple[str, Any, Any], ...] = (
    ("enable_thinking", True, False),
    ("thinking", True, False),
    ("thinking_budget", -1, 0),
    ("reasoning_effort", "high", "no_think"),
    ("reasoning_effort", "high", "none"),
)
WORDS = (("/think", "/no_think"), ("detailed thinking on", "detailed thinking off"))
