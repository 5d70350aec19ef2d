"""The engine that comes with the package: continuous batching of a decoder in torch, in a process of its own."""

from reason_engine.engines.embedded.front import Embedded

__all__ = ["Embedded"]
