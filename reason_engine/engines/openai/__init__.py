"""Any OpenAI-compatible endpoint as an engine, through the `openai` package."""

from reason_engine.engines.openai.engine import OpenAIEngine

__all__ = ["OpenAIEngine"]
