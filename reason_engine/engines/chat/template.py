"""A chat template: found beside the weights, run in Jinja's immutable sandbox.

It gets the names that Hugging Face templates expect (`raise_exception`, `strftime_now`, `tojson`, `{% generation %}`,
loop controls). What a template cannot take is tried once at load: a system turn, the lack of one, tools. A turn it
refuses is then written as it can take it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, cast

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.ext import loopcontrols as LoopControls
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from reason_engine.engines.checkpoint.checkpoint import Checkpoint

FAULTS = (TemplateError, TypeError, ValueError, OverflowError, ArithmeticError, RecursionError)
"""What a template may raise while it renders."""

Turn = Mapping[str, Any]


class Template:
    """A compiled template with the model's own token names. Raises TemplateSyntaxError when it is made."""

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        self.source = source
        self._tokens = tokens
        self._compiled = _environment().from_string(source)

    def render(
        self,
        turns: Sequence[Turn],
        *,
        tools: Sequence[Turn] = (),
        open: bool = True,
        names: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """The text of these turns; `open`: the assistant's turn is begun. `names`: switches. Raises FAULTS."""
        return self._compiled.render(
            {**self._tokens, "tools": list(tools) or None, "add_generation_prompt": open, **names},
            messages=list(turns),
            raise_exception=_raise,
            strftime_now=lambda form: datetime.now().strftime(form),
        )

    def tried(
        self,
        turns: Sequence[Turn],
        *,
        tools: Sequence[Turn] = (),
        open: bool = True,
        names: Mapping[str, Any] = MappingProxyType({}),
    ) -> str | None:
        """The text; None where the template refuses."""
        try:
            return self.render(turns, tools=tools, open=open, names=names)
        except FAULTS:
            return None


def stored_template(files: Checkpoint, config: Mapping[str, Any]) -> str | None:
    """The template beside the weights: a file of its own, else in the tokenizer's configuration; None without one."""
    if (text := files.read_text("chat_template.jinja")) is not None:
        return text
    stored: Any = config.get("chat_template")
    if stored is None:
        stored = files.read_json("chat_template.json", missing={}).get("chat_template")
    if isinstance(stored, list):
        named = {e.get("name"): e.get("template") for e in cast("list[dict[str, Any]]", stored)}
        stored = named.get("default")
    return stored if isinstance(stored, str) else None


def with_system_folded(turns: Sequence[Turn]) -> list[Turn]:
    """The turns without any system turn: its text begins the first user turn."""
    said = [turn["content"] for turn in turns if turn["role"] in SYSTEM_ROLES and turn["content"]]
    kept = [dict(turn) for turn in turns if turn["role"] not in SYSTEM_ROLES]
    if said:
        first = next((turn for turn in kept if turn["role"] == "user"), None)
        if first is None:
            return [{"role": "user", "content": "\n\n".join(said)}, *kept]
        first["content"] = "\n\n".join([*said, first["content"]])
    return list(kept)


SYSTEM_ROLES = ("system", "developer")
PLAIN = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""Turns as plain text, for a model that comes without a template."""


def _raise(message: str) -> None:
    raise TemplateError(message)


class _Generation(Extension):
    """`{% generation %} … {% endgeneration %}` marks what a model is trained on; rendering keeps its body."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    """The sandbox with the filters and tags that templates use."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControls])
    made.filters["tojson"] = _to_json
    return made


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML escapes, which Jinja's own filter would add."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
