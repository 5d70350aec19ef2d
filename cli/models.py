"""`reason models`: the models that are here (the bundled one, those in the hub's cache), or those of a server."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from reason_engine.cli.terminal import AsJson, Url, client_of, print_table, show
from reason_engine.errors import EngineDead, EngineError, ModelLoadError


def add_to(app: typer.Typer) -> None:
    app.command("models", help="List the models that are here.")(models)


def models(url: Url = None, as_json: AsJson = False) -> None:
    """List models."""
    import asyncio

    found = asyncio.run(remote(url)) if url else local()
    if as_json:
        for model in found:
            show(model)
    else:
        print_table(list(found[0]) if found else ["name"], (model.values() for model in found))


def local() -> list[dict[str, Any]]:
    """The bundled model and the text models of the hub's cache, described from their files."""
    from reason_engine.engines.open import NANO, bundled_model

    nano = bundled_model()
    found = [_describe(NANO, nano)] if nano else []
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    for repository in sorted(cache.glob("models--*--*")):
        name = "/".join(repository.name.split("--")[1:])
        for folder in sorted(repository.glob("snapshots/*"))[-1:]:
            if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
                found.append(_describe(name, folder))
            found += (_describe_file(name, folder, file) for file in sorted(folder.rglob("*.gguf")))
    return found


async def remote(url: str) -> list[dict[str, Any]]:
    """What a server lists. Raises EngineDead where none answers."""
    from openai import APIConnectionError, APIStatusError

    client, base = client_of(url)
    async with client:
        try:
            listed = (await client.models.list()).data
        except APIConnectionError:
            raise EngineDead(f"no server answers at {base}") from None
        except APIStatusError as error:
            raise EngineError(f"{base}: {error.message}") from None
    return [{"name": model.id, "owner": model.owned_by} for model in listed]


def _describe_file(name: str, folder: Path, file: Path) -> dict[str, Any]:
    """A GGUF file by the name under which it is served."""
    from reason_engine.engines.checkpoint.gguf.header import read_header

    try:
        metadata = read_header(file).metadata
    except ModelLoadError:
        metadata = dict[str, Any]()
    kind = str(metadata.get("general.architecture", "?"))
    return {
        "name": f"{name}:{file.relative_to(folder).as_posix()}",
        "kind": kind,
        "context": metadata.get(f"{kind}.context_length", "?"),
        "megabytes": round(file.stat().st_size / 1e6, 1),
        "folder": str(folder),
    }


def _describe(name: str, folder: Path) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    try:
        config: Mapping[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        config = {}
    return {
        "name": name,
        "kind": config.get("model_type", "?"),
        "context": config.get("max_position_embeddings", "?"),
        "megabytes": round(size / 1e6, 1),
        "folder": str(folder),
    }
