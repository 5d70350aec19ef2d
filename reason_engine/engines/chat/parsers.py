"""What the operator names of a chat format, by the names that vLLM's parsers have or by ours."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reason_engine.engines.chat import detection, tool_detection
from reason_engine.engines.chat.thoughts import named_thought
from reason_engine.engines.chat.tool_detection import named_format
from reason_engine.types import ModelInfo


@dataclass(frozen=True, slots=True)
class Parsers:
    """The parser of thoughts and that of tool calls; None: found from the model."""

    reasoning: str | None = None
    tools: str | None = None

    def check(self) -> None:
        """Raises SetupError for a name that is none, with the known ones."""
        others = (*detection.NO_PARSER, *detection.FROM_TOKENIZER)
        if self.reasoning is not None and self.reasoning not in others:
            named_thought(self.reasoning, others)
        if self.tools is not None and self.tools not in tool_detection.FROM_TOKENIZER:
            named_format(self.tools)

    def marked(self, info: ModelInfo) -> ModelInfo:
        """The description of a model whose template is not at hand, with the marks of the thoughts that are named."""
        if self.reasoning is None or self.reasoning in (*detection.NO_PARSER, *detection.FROM_TOKENIZER):
            return info
        thought = named_thought(self.reasoning)
        return replace(
            info, think_start=thought.start, think_end=thought.end, think_close=thought.cut, think_exit=thought.leave,
            answer_starts=thought.answer_starts, answer_end=thought.answer_end,
        )  # fmt: skip


AS_FOUND = Parsers()
"""Nothing is named."""
