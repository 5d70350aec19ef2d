"""Stored traces as rows: `GET /v1/traces/{id}` or `reason solve --trace --json`, one JSON object or one a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from reason_engine.data.rows import Row, Text
from reason_engine.errors import SetupError


def read_traces(path: Path) -> list[Row] | None:
    """Prompt and answer of every path of the file's traces; None where the file holds no traces. Raises SetupError."""
    if not path.name.endswith((".json", ".jsonl", ".ndjson")):
        return None
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: {error}") from None
    if '"nodes"' not in text:
        return None
    found = [nodes for value in _objects(text) if isinstance(nodes := value.get("nodes"), list)]
    if not found:
        return None
    return [row for nodes in found for row in _rows(cast("list[Any]", nodes))]


def _objects(text: str) -> Iterator[dict[str, Any]]:
    for part in (text, *text.splitlines()):
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            continue
        values = cast("list[Any]", value) if isinstance(value, list) else [value]
        for one in values:
            if isinstance(one, dict):
                inner = cast("dict[str, Any]", one).get("trace")
                yield cast("dict[str, Any]", inner if isinstance(inner, dict) else one)
        if part is text:
            return


def _rows(nodes: list[Any]) -> Iterator[Row]:
    for node in nodes:
        if isinstance(node, dict):
            one = cast("dict[str, Any]", node)
            prompt, answer = one.get("prompt"), f"{one.get('prefill') or ''}{one.get('text') or ''}"
            if isinstance(prompt, str) and prompt and answer:
                yield Text(prompt + answer)  # rendered by the chat template already
