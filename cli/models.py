"""`reason models`: the models that are here, or those of a running server."""

from __future__ import annotations

import typer

from reason_engine.cli._options import AsJson, Url, show


def add_to(app: typer.Typer) -> None:
    app.command("models", help="List the models that are here.")(models)


def models(url: Url = None, as_json: AsJson = False) -> None:
    """List models."""
    import asyncio

    from reason_engine.cli._models import local, remote

    found = asyncio.run(remote(url)) if url else local()
    if as_json:
        for model in found:
            show(model)
        return

    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for key in found[0] if found else ("name",):
        table.add_column(key)
    for model in found:
        table.add_row(*(str(value) for value in model.values()))
    Console().print(table)
