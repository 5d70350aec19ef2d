"""Which rows a recovery learns from and which its loss is taken on: none that perplexity is measured on.

Of a mixture both are drawn from seeds of their own. A file's rows are those that calibration drew from, less what is
held out there; running text in pieces, as there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from reason_engine.compression.config import Compression
from reason_engine.compression.material import Material, drawn, pieces_of
from reason_engine.data import Example
from reason_engine.data.mixture import Stream
from reason_engine.data.rows import Conversation, Text, to_json
from reason_engine.errors import SetupError

SHARE = 0.1
"""Of a file's rows, at most, that the loss is taken on."""
FEWEST = 10


def drawn_held(config: Compression, count: int) -> list[Example]:
    """Of a mixture: rows to take the loss on."""
    return list(islice(Stream(config.mixture, held_seed(config)), count))


def learned_seed(config: Compression) -> int:
    """Of the mixture that is learned."""
    return config.seed + 1_000_003


def held_seed(config: Compression) -> int:
    """Of the mixture's rows that the loss is taken on."""
    return config.seed + 2_000_003


def split(
    config: Compression, material: Material, tokenizer: Any, count: int, learned: Path
) -> list[Conversation | Text]:
    """Of a file: write what is learned, return what the loss is taken on. Raises SetupError on rows of other kinds and
    on too few."""
    found = list(_usable(config, material, tokenizer))
    held = min(count, int(SHARE * len(found)))
    if len(found) < FEWEST or not held:
        raise SetupError(f"recover: {config.data} has {len(found)} rows to learn from, at least {FEWEST}")
    with learned.open("w", encoding="utf-8") as file:
        for row in found[held:]:
            file.write(json.dumps(to_json(row), ensure_ascii=False) + "\n")
    return found[:held]


def _usable(config: Compression, material: Material, tokenizer: Any) -> Iterator[Conversation | Text]:
    held = set(map(tuple, material.held_out))
    for row in drawn(config)[0]:
        if not isinstance(row, (Conversation, Text)):
            kind = type(row).__name__.lower()
            raise SetupError(
                f"recover: learns from conversations or text, and {config.data} holds rows of kind {kind}"
            )
        pieces = pieces_of([row], tokenizer, config.length, 1 << 60)
        if isinstance(row, Conversation):
            if not held.intersection(map(tuple, pieces)):
                yield row
            continue
        yield from (Text(tokenizer.decode(ids)) for ids in pieces if tuple(ids) not in held)
