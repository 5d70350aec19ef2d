"""The Jinja environment that Hugging Face chat templates are written for."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from jinja2 import Environment, nodes
from jinja2.ext import Extension
from jinja2.ext import loopcontrols as LoopControls
from jinja2.parser import Parser


class Generation(Extension):
    """`{% generation %} … {% endgeneration %}` marks what a model is trained on; rendering keeps its body."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment(kind: type[Environment]) -> Environment:
    """An environment of that kind (a sandboxed one) with the filters and tags that templates use."""
    made = kind(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, LoopControls])
    made.filters["tojson"] = to_json
    return made


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML escapes, which Jinja's own filter would add."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
