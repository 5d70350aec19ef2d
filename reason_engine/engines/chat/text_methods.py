"""The text half of an engine that has its checkpoint's tokenizer, template and parsers at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reason_engine.contracts import Parsed
from reason_engine.engines.chat.template import ChatFormat
from reason_engine.types import Message


class Spoken:
    """What an engine answers from its format alone."""

    _format: ChatFormat

    def tokenize(self, text: str) -> list[int]:
        return self._format.tokenize(text)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        return self._format.detokenize(token_ids)

    def render_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | None = None,
        prefill: str = "",
    ) -> str:
        return self._format.render_chat(messages, tools=tools, think=think, prefill=prefill)

    def parse(self, text: str, *, prompt: str = "") -> Parsed:
        return self._format.parse(text, prompt=prompt)
