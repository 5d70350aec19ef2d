"""Special tokens of a checkpoint, as its files name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from tokenizers import Tokenizer

from reason_engine.engines.checkpoint.checkpoint import Checkpoint
from reason_engine.engines.checkpoint.folder import CONFIG


def end_ids(files: Checkpoint, tokenizer: Tokenizer, config: Mapping[str, Any]) -> frozenset[int]:
    """Tokens that end a text: those of every file that names some."""
    model = files.read_json(CONFIG, missing={})
    stored: Any = files.read_json("generation_config.json", missing={}).get("eos_token_id", model.get("eos_token_id"))
    ids: list[Any] = cast("list[Any]", stored) if isinstance(stored, list) else [stored]
    ids.append(tokenizer.token_to_id(token_text(config.get("eos_token"))))
    return frozenset(i for i in ids if isinstance(i, int))


def token_text(token: Any) -> str:
    """A special token is stored as its text or as a description of it."""
    if isinstance(token, Mapping):
        return str(cast("Mapping[str, Any]", token).get("content", ""))
    return token if isinstance(token, str) else ""
