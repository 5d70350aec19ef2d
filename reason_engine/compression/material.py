"""Token ids to calibrate on, and others to measure perplexity on, from the user's rows, traces, text or generators.

Rows are drawn by the seed. A conversation is rendered by the model's chat template, cut at `length`; running text is
cut into pieces of `length`. What perplexity is measured on is never calibrated on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from reason_engine.compression._traces import read_traces
from reason_engine.compression.config import Compression
from reason_engine.data.mixture import Stream
from reason_engine.data.readers import read_rows
from reason_engine.data.rows import (
    Conversation,
    Labelled,
    Preference,
    Reference,
    Row,
    Stepwise,
    Text,
    answer_text,
    prompt_text,
)
from reason_engine.errors import SetupError
from reason_engine.types import Message

MOST = 20_000
"""Rows that are read of a file before some are drawn."""
HELD_OUT = 64
LEAST = 512
"""Tokens under which statistics of activations mean nothing."""


@dataclass(frozen=True, slots=True)
class Material:
    """`calibration` and `held_out` are rows of token ids; `source` says in a line where they come from."""

    calibration: list[list[int]]
    held_out: list[list[int]]
    source: str


def has_source(config: Compression) -> bool:
    """Whether the config names text at all."""
    return config.data is not None or bool(config.mixture)


def read(config: Compression, model: Path) -> Material:
    """The text that the config names, as this model reads it. Raises SetupError where it is too short."""
    from reason_engine.training._models import load_tokenizer

    if not has_source(config):
        raise SetupError(
            "data: nothing to calibrate on; name a file of rows, traces or text (--set data=FILE), or a mixture"
        )
    tokenizer = load_tokenizer(model)
    rows, source = drawn(config)
    pieces = pieces_of(rows, tokenizer, config.length, config.rows + HELD_OUT)
    random.Random(f"pieces-{config.seed}").shuffle(pieces)  # of one long text too, both lists see all parts
    held = pieces[: max(1, min(HELD_OUT, len(pieces) // 5))]
    kept = pieces[len(held) : len(held) + config.rows]
    count = sum(map(len, kept))
    if count < LEAST:
        raise SetupError(f"data: {source} is too short to calibrate on: {count} tokens, at least {LEAST}")
    return Material(kept, held, f"{source}: {len(kept)} rows, {count:,} tokens")


def drawn(config: Compression) -> tuple[list[Row], str]:
    """Rows in the order in which they are drawn."""
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
    kinds = (Conversation, Preference, Labelled, Stepwise, Reference, Text)
    rows: list[Row] | None = read_traces(path)
    if rows is None:
        rows = [*islice(read_rows(path, *kinds, format=config.format), MOST)]
    random.Random(f"calibrate-{config.seed}").shuffle(rows)
    return rows, str(path)


def pieces_of(rows: Sequence[Row], tokenizer: Any, length: int, wanted: int) -> list[list[int]]:
    """Token ids of the rows until there are as many pieces as wanted."""
    found: list[list[int]] = []
    for row in rows:
        ids: list[int] = tokenizer(_written(row, tokenizer), add_special_tokens=False)["input_ids"]
        if isinstance(row, Text):
            found += [ids[at : at + length] for at in range(0, len(ids), length)]
        else:
            found.append(ids[:length])
        if len(found) >= wanted:
            break
    return [ids for ids in found if len(ids) > 1]


def _written(row: Row, tokenizer: Any) -> str:
    """The row as the model would see it; a model without a template sees plain text."""
    if isinstance(row, Text):
        return row.text
    answer = row.chosen if isinstance(row, Preference) else answer_text(row)
    if not getattr(tokenizer, "chat_template", None):
        return f"{prompt_text(row)}\n{answer}"
    from reason_engine.training._encode import Encoder

    return Encoder(tokenizer, 1 << 30).closed(row.prompt, answer)
