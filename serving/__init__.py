"""The OpenAI-compatible HTTP server. Installed as `reason_engine.serving`."""
