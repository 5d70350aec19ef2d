"""Tools, schemas and conversations under every strategy on vLLM."""

from __future__ import annotations

from tests.engines.formats import FormatContract
from tests.engines.vllm.tiny import MARKS

pytestmark = MARKS


class TestFormats(FormatContract):
    pass
