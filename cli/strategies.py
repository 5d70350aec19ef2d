"""`reason strategies`: every registered strategy with its paper and its options."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer import Argument

from reason_engine.cli.terminal import AsJson, print_table, show


def add_to(app: typer.Typer) -> None:
    app.command("strategies", help="List the reasoning strategies and their options.")(strategies)


def strategies(
    name: Annotated[str | None, Argument(help="Show the options of this one.")] = None, as_json: AsJson = False
) -> None:
    """List strategies, or the options of one."""
    from reason_engine.strategies import strategies as registry

    names = [name] if name else list(registry)
    kinds = [(each, registry.get(each)) for each in names]
    if as_json:
        for each, kind in kinds:
            described = {"name": each, "summary": kind.summary, "paper": kind.paper}
            show({**described, "schema": kind.model_json_schema()})
    elif name:
        options = kinds[0][1].model_json_schema()["properties"]
        print_table(
            ("option", "default", "range", "what it is"),
            [(key, one.get("default"), _range(one), one.get("description", "")) for key, one in options.items()],
        )
    else:
        rows = [(each, kind.summary, kind.paper) for each, kind in kinds]
        print_table(("strategy", "what it does", "paper"), rows)


def _range(field: dict[str, Any]) -> str:
    """The allowed values of a field, as its JSON schema states them."""
    members: list[dict[str, Any]] = field.get("anyOf") or [field]
    for member in members:
        if "enum" in member:
            return " ".join(str(value) for value in member["enum"])
        low, high = member.get("minimum", ""), member.get("maximum", "")
        if low != "" or high != "":
            return f"{low} .. {high}"
    return ""
