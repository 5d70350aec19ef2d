"""Text as it grows token by token: bytes to characters, and stop strings that may span tokens.

`Detokenizer` holds back the bytes of an unfinished character. `StopFinder` holds back the longest tail that could
still become a stop string, so that no part of one is ever shown.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from reason_engine.types import Prompt


def token_ids_of(prompt: str | Sequence[int], tokenize: Callable[[str], Sequence[int]]) -> tuple[int, ...]:
    """The tokens of a request's prompt: its own where it has them, else those of its text."""
    if isinstance(prompt, Prompt):
        return prompt.ids
    return tuple(tokenize(prompt) if isinstance(prompt, str) else prompt)


class Vocabulary:
    """Token ids to text for one tokenizer. Special tokens have none, but for those `shown`."""

    def __init__(self, tokenizer: Tokenizer, shown: Container[str] = ()) -> None:
        self.tokenizer = tokenizer
        self._byte_level = _is_byte_level(tokenizer)
        added = tokenizer.get_added_tokens_decoder().items()
        self._bytes: dict[int, bytes] = {
            i: b"" if token.special and token.content not in shown else token.content.encode() for i, token in added
        }
        self.shown = {i: token.content for i, token in added if token.special and token.content in shown}

    def detokenizer(self, prompt_ids: Sequence[int] = ()) -> Detokenizer:
        """A fresh one, for a text that continues these tokens."""
        return _Bytes(self) if self._byte_level else _Stream(self.tokenizer, prompt_ids, self.shown)

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes of a byte-level token."""
        if (found := self._bytes.get(token_id)) is None:
            text = self.tokenizer.id_to_token(token_id) or ""
            found = self._bytes[token_id] = bytes(_BYTE[c] for c in text if c in _BYTE)
        return found

    def text_of(self, token_id: int) -> str:
        """One token alone, for log-probabilities: special tokens by their name, broken characters as U+FFFD."""
        if self._byte_level and (found := self.bytes_of(token_id)):
            return found.decode(errors="replace")
        return self.tokenizer.decode([token_id], skip_special_tokens=False)


class _Bytes:
    def __init__(self, vocabulary: Vocabulary) -> None:
        self._of = vocabulary.bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_id: int) -> str:
        return self._decoder.decode(self._of(token_id))

    def finish(self) -> str:
        return self._decoder.decode(b"", True)


class _Stream:
    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], shown: Mapping[int, str]) -> None:
        self._tokenizer, self._shown = tokenizer, shown
        self._stream = DecodeStream(ids=list(prompt_ids[-8:]), skip_special_tokens=True)
        self._pending: list[int] = []

    def feed(self, token_id: int) -> str:
        if token_id in self._shown:  # control tokens are left out by the stream itself
            text, self._pending = self.finish() + self._shown[token_id], []
            self._stream = DecodeStream(ids=[], skip_special_tokens=True)
            return text
        text = self._stream.step(self._tokenizer, token_id)
        self._pending = [*self._pending, token_id] if text is None else []
        return text or ""

    def finish(self) -> str:
        return self._tokenizer.decode(self._pending, skip_special_tokens=True) if self._pending else ""


Detokenizer = _Bytes | _Stream
"""One sample's text. `feed` returns what a token adds, `finish` what was held back."""


@dataclass(slots=True)
class StopFinder:
    """Looks for the first of several stop strings in a growing text."""

    stops: Sequence[str]
    include: bool = False
    _held: str = ""

    def feed(self, text: str) -> tuple[str, str | None]:
        """What may be shown now, and the stop string if one is complete (the text then ends before it)."""
        if not self.stops:
            return text, None
        text = self._held + text
        at, stop = min(((i, s) for s in self.stops if (i := text.find(s)) >= 0), default=(-1, None))
        if stop is not None:
            self._held = ""
            return text[: at + len(stop) if self.include else at], stop
        sizes = ((s, range(1, min(len(text) + 1, len(s)))) for s in self.stops)
        keep = max((size for s, some in sizes for size in some if text.endswith(s[:size])), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], None

    def finish(self) -> str:
        """What was held back and came to nothing."""
        held, self._held = self._held, ""
        return held


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    decoder: Any = json.loads(tokenizer.to_str()).get("decoder") or {}
    parts = decoder.get("decoders", []) if decoder.get("type") == "Sequence" else [decoder]
    return [part.get("type") for part in parts] == ["ByteLevel"]


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins: bytes that print stand for themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTE = _byte_alphabet()
