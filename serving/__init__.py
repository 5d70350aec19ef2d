"""The OpenAI-compatible HTTP server. Installed as `reason_engine.serving`."""

from reason_engine.serving.app import create_app
from reason_engine.serving.server import serve

__all__ = ["create_app", "serve"]
