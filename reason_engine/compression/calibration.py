"""Token ids to calibrate on, and others to measure perplexity on, from the user's rows, traces, text or generators.

Rows are drawn by the seed. A conversation is rendered by the model's chat template, cut at `length`; running text is
cut into pieces of `length`. What perplexity is measured on is never calibrated on. Traces are those of
`GET /v1/traces/{id}` or `reason solve --trace --json`, one JSON object or one a line.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast, get_args

from reason_engine.compression import CompressionConfig
from reason_engine.data.formats.readers import read_rows
from reason_engine.data.formats.rows import Conversation, Preference, Question, Row, Text, answer_text, prompt_text
from reason_engine.data.mixture import Stream
from reason_engine.errors import SetupError
from reason_engine.types import Message

MOST_ROWS = 20_000
"""Rows that are read of a file before some are drawn."""
HELD_OUT = 64
LEAST_TOKENS = 512
"""Tokens under which statistics of activations mean nothing."""


@dataclass(frozen=True, slots=True)
class CalibrationRows:
    """`calibration` and `held_out` are rows of token ids; `source` says in a line where they come from."""

    calibration: list[list[int]]
    held_out: list[list[int]]
    source: str


def read_calibration(config: CompressionConfig, model: Path) -> CalibrationRows:
    """The text that the config names, as this model reads it. Raises SetupError where it is too short."""
    from reason_engine.training.common.models import load_tokenizer

    if not config.has_text:
        raise SetupError(
            "data: nothing to calibrate on; name a file of rows, traces or text (--set data=FILE), or a mixture"
        )
    tokenizer = load_tokenizer(model)
    rows, source = draw_rows(config)
    pieces = tokenized(rows, tokenizer, config.length, config.rows + HELD_OUT)
    random.Random(f"pieces-{config.seed}").shuffle(pieces)  # of one long text too, both lists see all parts
    held = pieces[: max(1, min(HELD_OUT, len(pieces) // 5))]
    kept = pieces[len(held) : len(held) + config.rows]
    count = sum(map(len, kept))
    if count < LEAST_TOKENS:
        raise SetupError(f"data: {source} is too short to calibrate on: {count} tokens, at least {LEAST_TOKENS}")
    return CalibrationRows(kept, held, f"{source}: {len(kept)} rows, {count:,} tokens")


def draw_rows(config: CompressionConfig) -> tuple[list[Row], str]:
    """Rows in the order in which they are drawn, and where they come from."""
    if config.data is None:
        stream = Stream(config.mixture, config.seed)
        found: list[Row] = [
            Conversation(tuple(Message(**turn) for turn in example.messages()))  # type: ignore[arg-type]
            for example in islice(stream, config.rows + HELD_OUT)
        ]
        return found, f"a mixture of {len(config.mixture)} families"
    path = config.data
    if path.suffix.lower() in (".txt", ".md") and config.format is None:
        try:
            return [Text(path.read_text("utf-8"))], str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(f"{path}: {error}") from None
    rows: list[Row] | None = read_traces(path)
    if rows is None:
        kinds = [kind for kind in get_args(Row) if kind is not Question]
        rows = [*islice(read_rows(path, *kinds, format=config.format), MOST_ROWS)]
    random.Random(f"calibrate-{config.seed}").shuffle(rows)
    return rows, str(path)


def tokenized(rows: Sequence[Row], tokenizer: Any, length: int, wanted: int) -> list[list[int]]:
    """Token ids of the rows until there are as many pieces as wanted."""
    found: list[list[int]] = []
    for row in rows:
        ids: list[int] = tokenizer(_rendered(row, tokenizer), add_special_tokens=False)["input_ids"]
        if isinstance(row, Text):
            found += [ids[at : at + length] for at in range(0, len(ids), length)]
        else:
            found.append(ids[:length])
        if len(found) >= wanted:
            break
    return [ids for ids in found if len(ids) > 1]


def _rendered(row: Row, tokenizer: Any) -> str:
    """The row as the model would see it; a model without a template sees plain text."""
    if isinstance(row, Text):
        return row.text
    answer = row.chosen if isinstance(row, Preference) else answer_text(row)
    if not getattr(tokenizer, "chat_template", None):
        return f"{prompt_text(row)}\n{answer}"
    from reason_engine.training.common.encode import Encoder

    return Encoder(tokenizer, 1 << 30).closed(row.prompt, answer)


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
    found = [nodes for value in _trace_objects(text) if isinstance(nodes := value.get("nodes"), list)]
    if not found:
        return None
    return [row for nodes in found for row in _trace_rows(cast("list[Any]", nodes))]


def _trace_objects(text: str) -> Iterator[dict[str, Any]]:
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


def _trace_rows(nodes: list[Any]) -> Iterator[Row]:
    for node in nodes:
        if isinstance(node, dict):
            one = cast("dict[str, Any]", node)
            prompt, answer = one.get("prompt"), f"{one.get('prefill') or ''}{one.get('text') or ''}"
            if isinstance(prompt, str) and prompt and answer:
                yield Text(prompt + answer)  # rendered by the chat template already
