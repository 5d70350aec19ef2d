"""`reason serve`: one model behind an OpenAI-compatible server.

Puts the server together from its settings (engine, profile, application) and prints what is served once it is. Whatever
can be known to be wrong before the weights are read is refused then.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from reason_engine.cli.terminal import Knowledge, ReasoningParser, Threads, ToolParser, bind_error
from reason_engine.errors import RequestError, SetupError

if TYPE_CHECKING:
    from reason_engine.settings import Settings

READY_CHECK_SECONDS = 0.05
EXAMPLE = "Use the numbers 4 5 6 10 and + - * / to make 24."


def add_to(app: typer.Typer) -> None:
    app.command("serve", help="Serve a model; none named: the bundled reason-nano.")(serve)


def serve(
    ctx: typer.Context,
    model: Annotated[str | None, Argument(help="Checkpoint folder, GGUF file or hub name.")] = None,
    engine: Annotated[str | None, Option(help="auto, vllm, embedded or openai.")] = None,
    strategy: Annotated[str | None, Option("--strategy", "-s", help="For requests that name none.")] = None,
    draft: Annotated[str | None, Option(help="sam, ngram, suffix, model:PATH or eagle:PATH.")] = None,
    adapters: Annotated[
        list[str] | None,
        Option(
            "--adapter",
            metavar="NAME[=PATH]",
            help="An adapter that `reason train` made; NAME alone: in adapters/ beside the weights; repeatable.",
        ),
    ] = None,
    adapters_dir: Annotated[
        list[Path] | None, Option(metavar="DIR", help="Folder that POST /v1/adapters may load from; repeatable.")
    ] = None,
    reward_models: Annotated[
        list[str] | None,
        Option(
            "--reward-model",
            metavar="NAME=PATH",
            help="A reward model, a folder or a pooling URL, #format=NAME behind it where needed; repeatable.",
        ),
    ] = None,
    knowledge: Knowledge = None,
    guard: Annotated[Path | None, Option(metavar="FILE", help="Rules on requests and answers, YAML or JSON.")] = None,
    host: Annotated[str | None, Option(help="Address to bind; beyond this machine only with a key.")] = None,
    port: Annotated[int | None, Option(min=0, max=65535, help="0: any free one.")] = None,
    api_keys: Annotated[
        list[str] | None, Option("--api-key", help="Key that clients need; better in REASON_API_KEYS.")
    ] = None,
    open: Annotated[bool, Option("--open", help="Serve beyond this machine without a key.")] = False,
    served_name: Annotated[str | None, Option(help="Name that clients ask for.")] = None,
    upstream_url: Annotated[
        list[str] | None,
        Option(metavar="URL", help="The endpoint behind --engine openai; repeatable, with the same model behind each."),
    ] = None,
    upstream_tokenizer: Annotated[
        Path | None, Option(metavar="DIR", help="A folder with the endpoint's tokenizer and chat template.")
    ] = None,
    upstream_connect_seconds: Annotated[
        float | None, Option(metavar="S", help="Until a connection to an endpoint stands; 10.")
    ] = None,
    upstream_idle_seconds: Annotated[
        float | None, Option(metavar="S", help="Silence after which a request leaves an endpoint; 120.")
    ] = None,
    reasoning_parser: ReasoningParser = None,
    tool_parser: ToolParser = None,
    weights: Annotated[str | None, Option(help="embedded: int8, full (as they are stored) or auto.")] = None,
    context: Annotated[int | None, Option(min=16, help="Tokens of prompt and answer together.")] = None,
    code_execution: Annotated[
        bool, Option("--allow-code", help="Let votes and the verifier `code` run the model's programs, in a sandbox.")
    ] = False,
    threads: Threads = None,
    config: Annotated[Path | None, Option(help="YAML file with any setting: reason_engine.settings.")] = None,
) -> None:
    """Serve until stopped."""
    from reason_engine.settings import load_settings

    # The parameters have the names of settings; what was not given is left to the file and the environment.
    given = {key: value for key, value in ctx.params.items() if key != "config" and value is not False and value != ()}
    if adapters:
        given["adapters"] = _adapters_of(adapters, load_settings({"model": model}, config))
    if reward_models:
        given["reward_models"] = _pairs(reward_models, "--reward-model")
    start(load_settings(given, config))


def _adapters_of(values: Sequence[str], settings: Settings) -> dict[str, str]:
    """`name=path` options; a name alone is that folder in `adapters/` beside the weights. Raises SetupError."""
    from reason_engine.engines.open import model_path
    from reason_engine.profile import companion

    whole: list[str] = []
    for value in values:
        if "=" not in value:
            beside = companion(model_path(settings)) / "adapters"
            there = sorted(path.name for path in beside.glob("*") if path.is_dir())
            if value not in there:
                known = f"beside the weights ({', '.join(there) or 'none'})"
                raise SetupError(f"--adapter {value!r}: expected NAME=PATH, or a name of those {known}")
            value = f"{value}={beside / value}"
        whole.append(value)
    return _pairs(whole)


def _pairs(values: Sequence[str], option: str = "--adapter") -> dict[str, str]:
    """`name=path` options as a mapping. Raises SetupError."""
    found: dict[str, str] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not name or not equals or not path:
            raise SetupError(f"{option} {value!r}: expected NAME=PATH")
        found[name] = path
    return found


def start(settings: Settings) -> None:
    """Serve until stopped. Raises SetupError for whatever can be known before the weights are read."""
    import asyncio
    import logging

    from reason_engine.engines.open import engine_name, open_engine, process_environment, profile_of, served_name

    kind = engine_name(settings)
    if wanted := process_environment(kind):
        # What is preloaded is decided when a process starts; the new one finds the variables set and goes on.
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **wanted})
    from reason_engine.strategies import strategies
    from reason_engine.verifiers.code import Sandbox

    engine = open_engine(settings, inline=False)
    profile = profile_of(settings)
    if settings.strategy:
        try:
            strategies.get(settings.strategy)
        except RequestError as error:
            raise SetupError(f"--strategy: {error}") from None
    host, port = settings.host, settings.port
    if port and (error := bind_error(host, port)):
        raise SetupError(f"cannot bind {host}:{port} ({error.strerror}); choose another with --port")
    if settings.code_execution and (reason := asyncio.run(Sandbox().probe())):
        raise SetupError(f"--allow-code: programs cannot be limited on this machine: {reason}")
    settings = settings.model_copy(update={"served_name": served_name(settings)})
    _check_adapters(settings, kind)
    print(f"loading {settings.served_name} ({kind} engine) …", file=sys.stderr, flush=True)

    from reason_engine.serving.app import create_app
    from reason_engine.serving.server import server_for

    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app = create_app(engine, profile, settings)
    gate = app.state.service.gate
    server = server_for(app, host, port)

    async def announce() -> None:
        while not (server.started and gate.open and (await engine.health()).ready):
            await asyncio.sleep(READY_CHECK_SECONDS)
        bound = server.servers[0].sockets[0].getsockname()[1]
        info = engine.info
        found = info.found if kind == "openai" else ()
        print(banner(settings, kind, profile.description, bound, info.precision, found), flush=True)

    async def run() -> None:
        announcing = asyncio.create_task(announce())
        try:
            await server.serve_until_stopped()
        finally:
            announcing.cancel()
            await asyncio.wait([announcing])

    asyncio.run(run())


def banner(
    settings: Settings, kind: str, description: str, port: int, precision: str = "", found: Sequence[str] = ()
) -> str:
    """What is served, where, what was found of the endpoint behind it, and a line to paste."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    body = {
        "model": settings.served_name,
        "messages": [{"role": "user", "content": EXAMPLE}],
        "reasoning": {"strategy": "tree-of-thoughts"},
    }
    runs = f"{kind} engine, {precision}" if precision else f"{kind} engine"
    key = " -H 'authorization: Bearer '$REASON_API_KEY" if settings.protected else ""
    lines = ["", f"{settings.served_name} is ready on {base}/v1   ({runs}; page: {base}/, API: {base}/docs)"]
    if settings.model is None and kind != "openai":
        lines.append(
            "reason-nano is a demonstration model of a few million parameters: it knows word problems, Game of 24 and "
            "Countdown, and nothing else."
        )
    elif description:
        lines.append(description)
    if found:
        lines.append(f"upstream: {'; '.join(found)}")
    curl = f"  curl {base}/v1/chat/completions -H 'content-type: application/json'{key} -d '{json.dumps(body)}'"
    lines += ["Try:", curl, ""]
    return "\n".join(lines)


def _check_adapters(settings: Settings, kind: str) -> None:
    """Say what is wrong with an adapter before the model is loaded, not after."""
    from reason_engine.engines.checkpoint.adapter_files import only_lora, read_adapter
    from reason_engine.profile import read_profile
    from reason_engine.serving.adapters import check_name

    for folder in settings.adapters_dir:
        if not folder.is_dir():
            raise SetupError(f"--adapters-dir {folder}: no such folder")
    for name, path in settings.adapters.items():
        try:
            check_name(name, settings.served_name or "")
        except RequestError as error:
            raise SetupError(f"--adapter {name}={path}: {error}") from None
        if kind == "openai":
            raise SetupError(f"--adapter {name}={path}: a remote model's adapters are served by its own server")
        if kind in ("embedded", "vllm"):
            file = read_adapter(path)
            if kind == "vllm":
                only_lora(file, "vLLM")
        read_profile(Path(path))
