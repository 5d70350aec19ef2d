"""The suffix automaton as a drafter of vLLM's (`method: custom_class`, runner V1): what `--draft sam` loads there.

SAM-Decoding, arXiv:2411.10666; the sources are those of the embedded engine (`draft_sources`), without given texts.
vLLM checks the drafts and names no requests, and rows move: a row is known by the end of its text before this step's
tokens, and rows with the same prompt are samples of one search. Which of two equal texts is whose makes no difference.
vLLM's own timing is not visible here, so a token is drafted while its chance to be right, as measured, is at least
LEAST_CHANCE.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reason_engine.engines.draft_sources import AcceptanceRates, Sam, SearchIndex, length_class
from reason_engine.engines.vllm.cpu_repairs import repair_drafting

log = logging.getLogger("reason_engine.engines.vllm")

LEAST_CHANCE = 0.3
SHORTEST_MATCH = 2
END_TOKENS = 64
"""Tokens by which a text is known."""
MOST_ROWS, MOST_PROMPTS = 1024, 64
"""Texts and prompts that are remembered; the ones not seen for longest go first."""
PROMPT_TOKENS = 512
"""Of a prompt, taken in at a time."""


@dataclass(slots=True)
class _Prompt:
    """What the samples of one prompt share."""

    search: SearchIndex = field(default_factory=SearchIndex)
    hits: AcceptanceRates = field(default_factory=AcceptanceRates)


@dataclass(slots=True)
class _Row:
    sam: Sam
    prompt: _Prompt
    drafted: int = 0
    kind: int = 0


class SamDrafter:
    """Called by vLLM's model runner after each step."""

    def __init__(self, vllm_config: Any) -> None:
        self._most = int(vllm_config.speculative_config.num_speculative_tokens)
        self._context = int(vllm_config.model_config.max_model_len)
        self._cpu = str(vllm_config.device_config.device) == "cpu"
        self._all = AcceptanceRates()
        self._rows: OrderedDict[tuple[int, bytes], list[_Row | None]] = OrderedDict()
        self._prompts: OrderedDict[bytes, _Prompt] = OrderedDict()
        self.failures = 0

    def load_model(self, *_: Any) -> None:
        """There is none; but this is called where the model runs."""
        if self._cpu:
            repair_drafting()

    def propose(
        self,
        sampled_token_ids: Sequence[Sequence[int]],
        num_tokens_no_spec: NDArray[np.int32],
        token_ids_cpu: NDArray[np.int32],
        slot_mappings: Any = None,
        **_: Any,
    ) -> list[list[int]]:
        """Drafts of each row; `token_ids_cpu[i, :num_tokens_no_spec[i]]` is its text, this step's tokens at the end."""
        return [
            self._propose(token_ids_cpu[row, : int(num_tokens_no_spec[row])], len(sampled)) if sampled else []
            for row, sampled in enumerate(sampled_token_ids)
        ]

    def _propose(self, text: NDArray[np.int32], gained: int) -> list[int]:
        """Of a row whose last `gained` tokens are new. A row that throws goes on without drafts."""
        known: _Row | None = None
        try:
            known, fresh = self._find(text[:-gained])
            draft = [] if known is None else self._draft(known, text, gained, fresh)
        except Exception as error:  # boundary: whatever a drafter does, the answer goes on without it
            self.failures += 1
            log.warning("a drafter failed and is off for its request: %s: %s", type(error).__name__, error)
            known, draft = None, []
        self._rows.setdefault(_key(text), []).append(known)
        self._rows.move_to_end(_key(text))
        while len(self._rows) > MOST_ROWS:
            self._rows.popitem(last=False)
        return draft

    def _find(self, before: NDArray[np.int32]) -> tuple[_Row | None, bool]:
        """The row that had this text, or a new one for which it is the prompt; and whether it is new."""
        if found := self._rows.get(_key(before)):
            row = found.pop()
            if not found:
                del self._rows[_key(before)]
            return row, False
        name = before.tobytes()
        prompt = self._prompts[name] = self._prompts.pop(name, None) or _Prompt(hits=AcceptanceRates(self._all))
        while len(self._prompts) > MOST_PROMPTS:
            self._prompts.popitem(last=False)
        return _Row(prompt.search.sam(tuple(before.tolist())), prompt), True

    def _draft(self, row: _Row, text: NDArray[np.int32], gained: int, fresh: bool) -> list[int]:
        search, hits = row.prompt.search, row.prompt.hits
        if row.drafted and not fresh:
            hits.observe(row.kind, row.drafted, min(gained - 1, row.drafted))
        row.drafted = 0
        search.queue.advance(PROMPT_TOKENS)
        row.sam.feed(text[-gained:].tolist())
        length = row.sam.find()
        if length < SHORTEST_MATCH:
            return []
        row.kind = length_class(length)
        worth = math.floor(math.log(LEAST_CHANCE) / math.log(hits.chance(row.kind)))
        draft = row.sam.draft(max(0, min(self._most, length, worth, self._context - len(text) - 1)))
        row.drafted = len(draft)
        return draft


def _key(text: NDArray[np.int32]) -> tuple[int, bytes]:
    return len(text), text[-END_TOKENS:].tobytes()
