"""The prompts of one request: each is rendered once, and each text tokenised once, for whoever asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reason_engine.contracts import Engine
from reason_engine.types import Message, Path, Prompt

LONGEST_END = 8
"""Tokens of the longest mark that may be cut off the end of a path."""


class PromptCache:
    """Admission, budget and engine share the tokens; the choices of one request may share the cache. `tools`, where
    they are given, are always those of the request."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rendered: dict[tuple[tuple[Message, ...], bool, bool | None, str], str] = {}
        self._prompts: dict[str, Prompt] = {}

    def render(
        self,
        messages: tuple[Message, ...],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | None = None,
        prefill: str = "",
    ) -> str:
        """The prompt's text, as `Engine.render_chat` makes it."""
        key = (messages, bool(tools), think, prefill)
        if key not in self._rendered:
            self._rendered[key] = self._engine.render_chat(messages, tools=tools, think=think, prefill=prefill)
        return self._rendered[key]

    def prompt(self, text: str) -> Prompt:
        """A text with its tokens."""
        if text not in self._prompts:
            self._prompts[text] = Prompt(text, self._engine.tokenize(text))
        return self._prompts[text]

    def continued(self, path: Path, insert: str = "") -> tuple[int, ...]:
        """What a continuation of a path begins with: its tokens as they were drawn, then those of `insert`.

        Tokens that ended it without being part of its text (an end of sequence, a mark that was cut off) go. A text
        that ends inside a token is read anew, since then only the text says where the path ends.
        """
        drawn, ids = path.text[len(path.prefill) :], path.token_ids
        for end in range(len(ids), max(len(ids) - LONGEST_END, 0) - 1, -1):
            if self._engine.detokenize(ids[:end]) == drawn:
                first = len(self.prompt("").ids)  # a beginning of sequence, where the model has one
                return (*path.prompt_ids, *ids[:end], *(self.prompt(insert).ids[first:] if insert else ()))
        return self.prompt(path.prompt + path.text + insert).ids
