"""What the operator names of a chat format, by the names that vLLM's parsers have or by ours."""

from __future__ import annotations

from dataclasses import dataclass

from reason_engine.engines.chat import detection, tool_detection
from reason_engine.engines.chat.thoughts import named_thought
from reason_engine.engines.chat.tool_detection import named_format


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


AS_FOUND = Parsers()
"""Nothing is named."""
