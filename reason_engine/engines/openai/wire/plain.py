"""Tokens where no tokenizer is at hand: an estimate for room in the context, pieces of three bytes, which can be turned
back into their text."""

from __future__ import annotations

from collections.abc import Sequence


def tokenize(text: str) -> list[int]:
    raw = text.encode("utf-8", "surrogatepass")
    return [int.from_bytes(b"\1" + raw[at : at + 3]) for at in range(0, len(raw), 3)]


def detokenize(token_ids: Sequence[int]) -> str:
    raw = b"".join(number.to_bytes(4).lstrip(b"\0")[1:] for number in token_ids)
    return raw.decode("utf-8", "replace")
