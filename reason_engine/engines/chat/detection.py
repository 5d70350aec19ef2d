"""Which family's thoughts a model writes: ordered rules over its template, its vocabulary and what it renders.

1. the operator's `--reasoning-parser`; 2. rules by family, most particular first; 3. the tokenizer's
`response_template`, which newer checkpoints carry; 4. a generic pair of marks, found by rendering the same turns
with thinking on and off, or a past thought and none; 5. none. The rule that decided is said at the start.

The rules by family were chosen after those of SGLang's template detection (0.5.23); what a family's switch does is
found by rendering (`switches`), not from its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reason_engine.engines.chat import thoughts
from reason_engine.engines.chat.switches import Switch
from reason_engine.engines.chat.template import Template, Turn
from reason_engine.engines.chat.thoughts import Thought, named_thought
from reason_engine.errors import SetupError

NO_PARSER = ("none", "identity", "off")
FROM_TOKENIZER = ("hf", "response_template")


@dataclass(frozen=True)
class Evidence:
    """What a rule may look at. `turns`: one user turn, `asked` its text; `has`: whether a text is one token."""

    template: Template
    has: Callable[[str], bool]
    turns: Sequence[Turn]
    asked: str
    switch: Switch | None
    response: Mapping[str, Any]

    def says(self, *texts: str) -> bool:
        """Whether all of these stand in the template."""
        return all(text in self.template.source for text in texts)

    @property
    def head(self) -> str:
        """What begins the assistant's turn by default."""
        return self.begun({})

    def begun(self, names: Mapping[str, Any], think: bool | None = None) -> str:
        """What begins the assistant's turn with these names."""
        turns = self.switch.spoken(self.turns, think) if self.switch and think is not None else self.turns
        whole = self.template.tried(turns, names=names)
        shut = self.template.tried(turns, names=names, open=False)
        if whole is None:
            return ""
        at = _shared(whole, shut or "")
        inside = whole.rfind("<", 0, at)  # of a mark whose beginning they share
        begun = whole[inside if inside >= 0 and ">" not in whole[inside:at] else at :]
        return begun or whole.rpartition(self.asked)[2]  # a template without a generation prompt


@dataclass(frozen=True, slots=True)
class Found:
    """A thought's marks (None: it writes none) and the rule that found them."""

    thought: Thought | None
    rule: str


def find_thought(evidence: Evidence, named: str | None) -> Found:
    """By the operator's name, else by the first rule that holds. Raises SetupError for an unknown name."""
    if named in NO_PARSER:
        return Found(None, "named")
    if named in FROM_TOKENIZER:
        if made := _from_response(evidence.response):
            return Found(made, "named")
        raise SetupError(f"--reasoning-parser {named}: the tokenizer has no response_template with a thinking field")
    if named is not None:
        return Found(named_thought(named, (*NO_PARSER, *FROM_TOKENIZER)), "named")
    for thought, rule, holds in RULES:
        if holds(evidence):
            return Found(thought, rule)
    if made := _from_response(evidence.response):
        return Found(made, "the tokenizer's response_template")
    if made := _by_rendering(evidence) or _by_history(evidence):
        return Found(made, "rendered with and without a thought")
    return Found(None, "no mark of a thought in the template")


def _thinking(evidence: Evidence) -> bool:
    return evidence.says("</think>")


RULES: tuple[tuple[Thought, str, Callable[[Evidence], bool]], ...] = (
    (thoughts.HARMONY, "<|channel|> in the template",
     lambda e: e.says("<|channel|>") or (e.says("<|start|>") and e.has("<|channel|>") and e.has("<|message|>"))),
    (thoughts.GEMMA, "<|channel> in the template", lambda e: e.says("<|channel>")),
    (thoughts.MISTRAL, "[THINK] in the template", lambda e: e.says("[THINK]")),
    (thoughts.KIMI, "◁think▷ in the template", lambda e: e.says("◁think▷")),
    (thoughts.COHERE, "<|START_THINKING|> in the template", lambda e: e.says("<|START_THINKING|>")),
    (thoughts.KIMI_K3, "<|open|>think<|sep|> in the template", lambda e: e.says("<|open|>think<|sep|>")),
    (thoughts.MINIMAX_M3, "<mm:think> in the template", lambda e: e.says("<mm:think>")),
    (thoughts.PLAMO, "<|plamo:begin_think in the template", lambda e: e.says("<|plamo:begin_think")),
    (thoughts.SEED, "<seed:think> in the template", lambda e: e.says("<seed:think>")),
    (thoughts.GRANITE, "'Here is my thought process' in the template", lambda e: e.says("Here is my thought process")),
    (thoughts.GRANITE_TAGS, "truncate_history_thinking and defer_loading",
     lambda e: _thinking(e) and e.says("truncate_history_thinking", "defer_loading")),
    (thoughts.NEMOTRON, "truncate_history_thinking, or <SPECIAL_ marks, or 'detailed thinking'",
     lambda e: e.says("truncate_history_thinking") or (_thinking(e) and (e.says("<SPECIAL_") or e.says("<TOOLCALL>")))
     or e.says("detailed thinking")),
    (thoughts.HUNYUAN_V3, "</think> and <tool_sep> in the template", lambda e: _thinking(e) and e.says("<tool_sep>")),
    (thoughts.HUNYUAN, "</think> and <answer> in the template", lambda e: _thinking(e) and e.says("<answer>")),
    (thoughts.ERNIE, "</think> and <response> in the template", lambda e: _thinking(e) and e.says("<response>")),
    (thoughts.GLM, "[gMASK]<sop> in the template", lambda e: _thinking(e) and e.says("[gMASK]<sop>")),
    (thoughts.KIMI_K2, "<|im_middle|> in the template", lambda e: _thinking(e) and e.says("<|im_middle|>")),
    (thoughts.DEEPSEEK_V3, "<｜Assistant｜> with a switch",
     lambda e: _thinking(e) and e.says("<｜Assistant｜>") and e.switch is not None),
    (thoughts.DEEPSEEK_R1, "the prompt opens <think> whatever is asked",
     lambda e: _thinking_or_open(e) and ((e.switch is None and "<think>" in e.head) or e.says("<｜Assistant｜>"))),
    (thoughts.QWEN, "</think> in the template, and a switch", lambda e: _thinking(e) and e.switch is not None),
    (thoughts.DEEPSEEK_R1, "</think> in the template", _thinking),
)  # fmt: skip
"""Most particular first: later ones would hold for earlier families as well."""

MARK = r"<\|?/?[A-Za-z][\w:.-]*\|?>|\[/?[A-Z][A-Z_]+\]|◁/?\w+▷|<｜[^｜<>]+｜>"


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _thinking_or_open(evidence: Evidence) -> bool:
    return _thinking(evidence) or "<think>" in evidence.head


def _from_response(response: Mapping[str, Any]) -> Thought | None:
    """The field `thinking` of a response_template, where its marks are texts rather than patterns."""
    field: Any = (response.get("fields") or {}).get("thinking") or {}
    start, end = (_literal(field.get(key)) for key in ("open", "close"))
    return Thought("response-template", start, end) if start and end else None


def _literal(value: Any) -> str:
    if isinstance(value, list) and value:
        value = value[0]
    return value.strip() if isinstance(value, str) else ""


def _by_rendering(evidence: Evidence) -> Thought | None:
    """Marks that the assistant's turn begins with when thinking is off, or the one that differs from on."""
    switch = evidence.switch
    if switch is None or switch.words is not None:
        return None
    on, off = (evidence.begun(switch.names(think)) for think in (True, False))
    same = _shared(on, off)
    begun = [re.findall(MARK, on[same:]), re.findall(MARK, off[same:])]
    if (pair := re.search(rf"({MARK})\s*({MARK})\s*\Z", off)) and pair[1] != pair[2]:
        return Thought("generic", pair[1], pair[2])
    if len(begun[0]) == 1 and len(begun[1]) == 1:
        return Thought("generic", begun[0][0], begun[1][0])
    return None


def _by_history(evidence: Evidence) -> Thought | None:
    """Marks around a past thought: the turns are rendered with one and without."""
    past = {"role": "assistant", "content": "SAID", "reasoning_content": "THOUGHT", "thinking": "THOUGHT"}
    whole = evidence.template.tried([*evidence.turns, past], open=False) or ""
    found = re.search(rf"({MARK})\s*THOUGHT\s*({MARK})\s*SAID", whole)
    return Thought("generic", found[1], found[2]) if found else None
