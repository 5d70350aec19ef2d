"""How one checkpoint speaks: its template, the marks of its thoughts, its switches and its form of tool calls.

Nothing here is set per model: marks, switches and formats are data, found from the template and the vocabulary by
ordered rules (`detection`, `tool_detection`), or named by the operator.
"""

from __future__ import annotations

from reason_engine.engines.chat.format import ChatFormat, ChatTextMethods
from reason_engine.engines.chat.parsers import AS_FOUND, Parsers

__all__ = ["AS_FOUND", "ChatFormat", "ChatTextMethods", "Parsers"]
