"""What is known of a served model: its size, and how it writes thoughts, answers and tool calls, as data.

Engines find the marks in the model's chat format; whoever reads a path's text or writes into it takes them from here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What an engine serves. `context` is in tokens, prompt and answer together. `fingerprint` names weights and
    engine. `specials`: texts that the tokenizer takes for control tokens, where the engine knows them."""

    name: str
    path: str
    context: int
    thinks: bool = False
    """It reasons by itself, between `think_start` and `think_end`."""
    think_start: str = "<think>"
    think_end: str = "</think>"
    think_close: str = "\n\nTime is up; the answer has to come now.\n</think>\n\n"
    """What ends an open thought that may go no further, up to where the answer begins."""
    tool_start: str = "<tool_call>"
    fingerprint: str = ""
    specials: tuple[str, ...] = ()
    think_on_request: bool = False
    """It can reason where a request turns thinking on."""
    think_exit: str = "\n</think>\n\n"
    """`think_close` without the sentence that says why."""
    answer_starts: tuple[str, ...] = ()
    """Marks of which one may stand before the answer."""
    answer_end: str = ""
    """A mark that ends the answer, where the model writes one."""
    tool_opening: str = "<tool_call>\n"
    """What a forced tool call begins with; JSON with `name` and `arguments` follows."""
    tool_end: str = "</tool_call>"
    system_role: bool = True
    """Whether the chat template takes a system turn; otherwise its text begins the first user turn."""
    precision: str = ""
    """What the weights are multiplied in, once the engine has started and where it knows."""
    found: tuple[str, ...] = ()
    """What was found of the chat format and by which rule, a line each."""

    def thinking(self, asked: bool | None) -> bool:
        """Whether it thinks where a request asks for it, asks for none, or says nothing (None)."""
        return self.thinks or self.think_on_request if asked else self.thinks and asked is None
