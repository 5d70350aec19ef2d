"""`reason serve`: one model behind an OpenAI-compatible server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reason_engine.cli.terminal.options import Knowledge, Threads


def add_to(app: typer.Typer) -> None:
    app.command("serve", help="Serve a model; none named: the bundled reason-nano.")(serve)


def serve(
    model: Annotated[str | None, typer.Argument(help="Checkpoint folder or hub name.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, vllm, embedded or openai.")] = None,
    strategy: Annotated[
        str | None, typer.Option("--strategy", "-s", help="For requests that name none.")
    ] = None,
    draft: Annotated[str | None, typer.Option(help="sam, ngram, suffix, model:PATH or eagle:PATH.")] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=PATH]",
            help="An adapter that `reason train` made; NAME alone: in adapters/ beside the weights; repeatable.",
        ),
    ] = None,
    adapters_dir: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Folder that POST /v1/adapters may load from; repeatable."),
    ] = None,
    reward_model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="A reward model, a folder or a pooling URL; repeatable."),
    ] = None,
    knowledge: Knowledge = None,
    guard: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rules on requests and answers, YAML or JSON.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to bind; beyond this machine only with a key.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free one.")] = None,
    api_key: Annotated[
        list[str] | None, typer.Option(help="Key that clients need; better in REASON_API_KEYS.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Serve beyond this machine without a key.")] = False,
    name: Annotated[str | None, typer.Option("--served-name", help="Name that clients ask for.")] = None,
    upstream_url: Annotated[str | None, typer.Option(help="The endpoint behind --engine openai.")] = None,
    context: Annotated[int | None, typer.Option(min=16, help="Tokens of prompt and answer together.")] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let the verifier `code` run programs, in a sandbox.")
    ] = False,
    threads: Threads = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with any setting: reason_engine.settings.")
    ] = None,
) -> None:
    """Serve until stopped."""
    from reason_engine.cli.terminal.server import adapters_of, pairs, start
    from reason_engine.settings import load_settings

    flags = {
        "model": model,
        "engine": engine,
        "strategy": strategy,
        "draft": draft,
        "adapters": adapters_of(adapter, load_settings({"model": model}, config)) if adapter else None,
        "adapters_dir": tuple(adapters_dir) if adapters_dir else None,
        "reward_models": pairs(reward_model, "--reward-model") if reward_model else None,
        "knowledge": knowledge,
        "guard": guard,
        "host": host,
        "port": port,
        "api_keys": tuple(api_key) if api_key else None,
        "open": open_ or None,
        "served_name": name,
        "upstream_url": upstream_url,
        "context": context,
        "code_execution": allow_code or None,
        "threads": threads,
    }
    start(load_settings(flags, config))
