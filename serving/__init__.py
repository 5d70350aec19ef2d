"""The OpenAI-compatible HTTP server. Installed as `reason_engine.serving`.

`create_app` is in `app`, `serve` in `server`. Nothing is imported here: commands use single parts (`pick`, `answer`)
without loading the web framework.
"""
