from __future__ import annotations

from typing import Any


class PromptCache:
    def __init__(self, engine: Any) -> None: ...
