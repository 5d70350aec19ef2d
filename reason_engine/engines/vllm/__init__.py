"""vLLM as an engine, releases 0.26 to 0.33: AsyncLLM on accelerators, LLMEngine in a thread on the CPU build."""

from reason_engine.engines.vllm.engine import VllmEngine

__all__ = ["VllmEngine"]
